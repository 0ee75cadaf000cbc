package main

import (
	"context"
	"time"

	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// manager is the field manager that every contender writes under: the objects remember each name, and more cost more.
const manager = client.FieldOwner("controller")

type reconcileFunc func(context.Context, ctrl.Request) (ctrl.Result, error)

func (f reconcileFunc) Reconcile(ctx context.Context, request ctrl.Request) (ctrl.Result, error) {
	return f(ctx, request)
}

type reconciler struct {
	client  client.Client
	options options
}

func (r reconciler) typed(ctx context.Context, request ctrl.Request) (ctrl.Result, error) {
	done.reconciles.Add(1)
	var widget Widget
	if err := r.client.Get(ctx, request.NamespacedName, &widget); err != nil {
		return ctrl.Result{}, client.IgnoreNotFound(err)
	}
	before := widget.DeepCopy()
	widget.Status.Run = r.options.run
	widget.Status.ObservedGeneration = widget.Generation
	meta.SetStatusCondition(&widget.Status.Conditions, metav1.Condition{
		Type: "Ready", Status: metav1.ConditionTrue, Reason: "Provisioned", Message: "1 of 1",
	})
	return r.write(ctx, equality.Semantic.DeepEqual(before.Status, widget.Status), before, &widget)
}

// read reads an object and writes nothing.
func (r reconciler) read(ctx context.Context, request ctrl.Request) (ctrl.Result, error) {
	if err := r.client.Get(ctx, request.NamespacedName, newObject(r.options)); err != nil {
		return ctrl.Result{}, client.IgnoreNotFound(err)
	}
	if done.reconciles.Add(1) == int64(r.options.count) {
		mark("done", nil)
	}
	return ctrl.Result{}, nil
}

// DeepCopy copies as generated code does.
func (in *Widget) DeepCopy() *Widget {
	out := &Widget{}
	in.DeepCopyInto(out)
	return out
}

func (r reconciler) untyped(ctx context.Context, request ctrl.Request) (ctrl.Result, error) {
	done.reconciles.Add(1)
	object := &unstructured.Unstructured{}
	object.SetGroupVersionKind(groupVersion.WithKind("Widget"))
	if err := r.client.Get(ctx, request.NamespacedName, object); err != nil {
		return ctrl.Result{}, client.IgnoreNotFound(err)
	}
	before := object.DeepCopy()
	since, _, _ := unstructured.NestedSlice(object.Object, "status", "conditions")
	transition := time.Now().UTC().Format(time.RFC3339)
	if len(since) > 0 {
		if first, ok := since[0].(map[string]any); ok {
			transition, _ = first["lastTransitionTime"].(string)
		}
	}
	status := map[string]any{
		"run":                r.options.run,
		"observedGeneration": object.GetGeneration(),
		"conditions": []any{map[string]any{
			"type": "Ready", "status": "True", "reason": "Provisioned", "message": "1 of 1", "lastTransitionTime": transition,
		}},
	}
	if err := unstructured.SetNestedMap(object.Object, status, "status"); err != nil {
		return ctrl.Result{}, err
	}
	return r.write(ctx, equality.Semantic.DeepEqual(before.Object["status"], object.Object["status"]), before, object)
}

func (r reconciler) write(ctx context.Context, same bool, before, after client.Object) (ctrl.Result, error) {
	result := ctrl.Result{RequeueAfter: r.options.requeue}
	if same {
		return result, nil
	}
	var err error
	if r.options.write == "patch" {
		lock := client.MergeFromWithOptimisticLock{}
		err = r.client.Status().Patch(ctx, after, client.MergeFromWithOptions(before, lock), manager)
	} else {
		err = r.client.Status().Update(ctx, after, manager)
	}
	if err != nil {
		done.failures.Add(1)
		return ctrl.Result{}, err
	}
	if done.writes.Add(1) == int64(r.options.count) {
		mark("done", nil)
	}
	return result, nil
}
