package main

import (
	"fmt"
	"time"

	"k8s.io/client-go/util/workqueue"
	"sigs.k8s.io/controller-runtime/pkg/controller/priorityqueue"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
)

// queue adds all keys, then gets and finishes them, with client-go's queue and with controller-runtime's.
func queue(o options) {
	keys := make([]reconcile.Request, o.count)
	for i := range keys {
		keys[i].Namespace = "default"
		keys[i].Name = fmt.Sprintf("widget-%07d", i)
	}
	plain := workqueue.NewTypedRateLimitingQueue(workqueue.DefaultTypedControllerRateLimiter[reconcile.Request]())
	priority := priorityqueue.New[reconcile.Request]("benchmark")
	mark("queue", map[string]any{"client-go": perKey(plain, keys), "controller-runtime": perKey(priority, keys)})
}

func perKey(queue workqueue.TypedRateLimitingInterface[reconcile.Request], keys []reconcile.Request) float64 {
	start := time.Now()
	for _, key := range keys {
		queue.Add(key)
	}
	for range keys {
		key, _ := queue.Get()
		queue.Done(key)
	}
	elapsed := time.Since(start)
	queue.ShutDown()
	return elapsed.Seconds() / float64(len(keys))
}
