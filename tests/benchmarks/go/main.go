// Command benchmark is the controller-runtime contender: it does one piece of work when told to and says when it is done.
//
// It speaks with the harness over its standard input ("go", "stats", end of input to stop) and output (a JSON object a
// line); see ../contenders/protocol.py, which is the same for the Python contenders.
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/go-logr/logr"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	toolscache "k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/clientcmd"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"
	"sigs.k8s.io/controller-runtime/pkg/predicate"
)

type options struct {
	work, kind, kubeconfig, namespace, run, write string
	count, workers                                int
	requeue                                       time.Duration
	unstructured, predicate                       bool
}

func parse() options {
	var o options
	var seconds float64
	flags := flag.NewFlagSet("benchmark", flag.ExitOnError) // controller-runtime registers --kubeconfig in the common one
	flags.StringVar(&o.work, "work", "converge", "converge, start, read or queue")
	flags.StringVar(&o.kind, "kind", "Widget", "Widget or Pod")
	flags.StringVar(&o.kubeconfig, "kubeconfig", "", "how to reach the server")
	flags.StringVar(&o.namespace, "namespace", "", "what to watch")
	flags.StringVar(&o.run, "run", "", "what is written into status.run")
	flags.StringVar(&o.write, "write", "update", "update or patch the status")
	flags.IntVar(&o.count, "count", 0, "objects, or keys")
	flags.IntVar(&o.workers, "workers", 10, "MaxConcurrentReconciles")
	flags.Float64Var(&seconds, "requeue", 0, "seconds after which each key runs again; 0 for never")
	flags.BoolVar(&o.unstructured, "unstructured", false, "use unstructured objects in place of typed ones")
	flags.BoolVar(&o.predicate, "predicate", true, "use the generation predicate")
	_ = flags.Parse(os.Args[1:])
	o.requeue = time.Duration(seconds * float64(time.Second))
	return o
}

// counts are what the contender did; the harness compares them with the server's own.
type counts struct{ reconciles, writes, failures, objects atomic.Int64 }

var (
	done     counts
	printing sync.Mutex
)

func mark(name string, extra map[string]any) {
	var usage syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &usage)
	line := map[string]any{
		"mark":       name,
		"at":         float64(time.Now().UnixNano()) / 1e9,
		"cpu":        seconds(usage.Utime) + seconds(usage.Stime),
		"reconciles": done.reconciles.Load(),
		"writes":     done.writes.Load(),
		"failures":   done.failures.Load(),
		"objects":    done.objects.Load(),
	}
	for key, value := range extra {
		line[key] = value
	}
	text, _ := json.Marshal(line)
	printing.Lock()
	defer printing.Unlock()
	fmt.Println(string(text))
}

func seconds(t syscall.Timeval) float64 { return float64(t.Sec) + float64(t.Usec)/1e6 }

func check(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func main() {
	o := parse()
	if o.work == "queue" {
		queue(o)
		return
	}
	ctrl.SetLogger(logr.Discard())
	config, err := clientcmd.BuildConfigFromFlags("", o.kubeconfig)
	check(err)
	config.QPS = -1 // no limit on the client's side
	scheme := runtime.NewScheme()
	check(addToScheme(scheme))
	check(corev1.AddToScheme(scheme))
	manager, err := ctrl.NewManager(config, ctrl.Options{
		Scheme:  scheme,
		Metrics: metricsserver.Options{BindAddress: "0"},
		Cache: cache.Options{
			DefaultNamespaces: map[string]cache.Config{o.namespace: {}},
			DefaultTransform:  cache.TransformStripManagedFields(),
		},
		Client: client.Options{Cache: &client.CacheOptions{Unstructured: true}},
	})
	check(err)
	object := newObject(o)
	if o.work == "converge" || o.work == "read" {
		check(addController(manager, object, o))
	}

	input := bufio.NewScanner(os.Stdin)
	mark("ready", nil)
	input.Scan()
	ctx, stop := context.WithCancel(context.Background())
	go func() {
		for input.Scan() {
			mark("stats", nil)
		}
		stop()
	}()
	go report(ctx, manager, object)
	check(manager.Start(ctx))
}

// report says when the cache holds what the server had, and a handler has heard of it.
func report(ctx context.Context, manager ctrl.Manager, object client.Object) {
	informer, err := manager.GetCache().GetInformer(ctx, object)
	check(err)
	handler := toolscache.ResourceEventHandlerFuncs{AddFunc: func(any) { done.objects.Add(1) }}
	registration, err := informer.AddEventHandler(handler)
	check(err)
	if !toolscache.WaitForCacheSync(ctx.Done(), registration.HasSynced) {
		return
	}
	mark("synced", nil)
}

func newObject(o options) client.Object {
	if o.kind == "Pod" {
		return &corev1.Pod{}
	}
	if o.unstructured {
		object := &unstructured.Unstructured{}
		object.SetGroupVersionKind(groupVersion.WithKind("Widget"))
		return object
	}
	return &Widget{}
}

func addController(manager ctrl.Manager, object client.Object, o options) error {
	var chosen []builder.ForOption
	if o.predicate {
		chosen = append(chosen, builder.WithPredicates(predicate.GenerationChangedPredicate{}))
	}
	base := reconciler{client: manager.GetClient(), options: o}
	reconcile := base.typed
	if o.work == "read" {
		reconcile = base.read
	} else if o.unstructured {
		reconcile = base.untyped
	}
	return ctrl.NewControllerManagedBy(manager).
		Named("widget").
		For(object, chosen...).
		WithOptions(controller.Options{MaxConcurrentReconciles: o.workers}).
		Complete(reconcileFunc(reconcile))
}
