// An informer, which prints what it sees of a ConfigMap.
import * as k8s from "@kubernetes/client-node";

const config = new k8s.KubeConfig();
config.loadFromDefault();
const api = config.makeApiClient(k8s.CoreV1Api);
const namespace = "default";
const list = () => api.listNamespacedConfigMap({ namespace });
const informer = k8s.makeInformer(config, `/api/v1/namespaces/${namespace}/configmaps`, list);
const deleted = new Promise((resolve) => {
  for (const event of ["add", "update", "delete"])
    informer.on(event, (map) => {
      if (map.metadata.name !== "seen") return;
      console.log(`inform ${event}`);
      if (event === "delete") resolve();
    });
});
await informer.start();
await api.createNamespacedConfigMap({ namespace, body: { metadata: { name: "seen" } } });
await api.replaceNamespacedConfigMap({ namespace, name: "seen", body: { metadata: { name: "seen" }, data: { a: "b" } } });
await api.deleteNamespacedConfigMap({ namespace, name: "seen" });
await deleted;
await informer.stop();
process.exit(0);
