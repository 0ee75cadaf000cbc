// Command manager is a small operator on controller-runtime: for each Site it keeps a ConfigMap with its pages.
//
// With -forgetful the ConfigMap has a generated name, which is recorded in the status only after it was created.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"

	"github.com/go-logr/logr"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller/controllerutil"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"
)

var site = schema.GroupVersionKind{Group: "example.com", Version: "v1", Kind: "Site"}

type reconciler struct {
	client.Client
	forgetful bool
}

func newSite() *unstructured.Unstructured {
	object := &unstructured.Unstructured{}
	object.SetGroupVersionKind(site)
	return object
}

func (r reconciler) Reconcile(ctx context.Context, request ctrl.Request) (ctrl.Result, error) {
	owner := newSite()
	if err := r.Get(ctx, request.NamespacedName, owner); err != nil {
		return ctrl.Result{}, client.IgnoreNotFound(err)
	}
	if owner.GetDeletionTimestamp() != nil {
		return ctrl.Result{}, nil
	}
	pages, _, _ := unstructured.NestedInt64(owner.Object, "spec", "pages")
	title, _, _ := unstructured.NestedString(owner.Object, "spec", "title")
	data := map[string]string{"pages": fmt.Sprint(pages), "title": title}
	recorded, _, _ := unstructured.NestedString(owner.Object, "status", "configMap")
	name := owner.GetName() + "-pages"
	if r.forgetful {
		name = recorded
	}
	config := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: owner.GetNamespace(), Name: name}}
	change := func() error {
		config.Data = data
		return controllerutil.SetControllerReference(owner, config, r.Scheme())
	}
	if name == "" {
		config.GenerateName = owner.GetName() + "-"
		if err := change(); err != nil {
			return ctrl.Result{}, err
		}
		if err := r.Create(ctx, config); err != nil {
			return ctrl.Result{}, err
		}
	} else if _, err := controllerutil.CreateOrUpdate(ctx, r.Client, config, change); err != nil {
		return ctrl.Result{}, err
	}
	published, _, _ := unstructured.NestedInt64(owner.Object, "status", "published")
	if recorded == config.Name && published == pages {
		return ctrl.Result{}, nil
	}
	status := map[string]any{"configMap": config.Name, "published": pages}
	if err := unstructured.SetNestedMap(owner.Object, status, "status"); err != nil {
		return ctrl.Result{}, err
	}
	return ctrl.Result{}, r.Status().Update(ctx, owner)
}

func check(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func main() {
	forgetful := flag.Bool("forgetful", false, "record the generated name of the ConfigMap after it was created")
	flag.Parse()
	ctrl.SetLogger(logr.Discard())
	manager, err := ctrl.NewManager(ctrl.GetConfigOrDie(), ctrl.Options{Metrics: metricsserver.Options{BindAddress: "0"}})
	check(err)
	check(ctrl.NewControllerManagedBy(manager).
		For(newSite()).
		Owns(&corev1.ConfigMap{}).
		Complete(reconciler{manager.GetClient(), *forgetful}))
	check(manager.Start(ctrl.SetupSignalHandler()))
}
