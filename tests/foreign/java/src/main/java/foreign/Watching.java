package foreign;

import io.fabric8.kubernetes.api.model.ConfigMap;
import io.fabric8.kubernetes.api.model.ConfigMapBuilder;
import io.fabric8.kubernetes.client.KubernetesClientBuilder;
import io.fabric8.kubernetes.client.KubernetesClientException;
import io.fabric8.kubernetes.client.Watcher;
import io.fabric8.kubernetes.client.WatcherException;
import io.fabric8.kubernetes.client.informers.ResourceEventHandler;
import java.util.concurrent.LinkedBlockingQueue;
import java.util.concurrent.TimeUnit;

/** A watch and an informer over WebSockets, which print what they see of a ConfigMap; and a command in a pod. */
public class Watching {
  public static void main(String[] arguments) throws Exception {
    var watched = new LinkedBlockingQueue<String>();
    var informed = new LinkedBlockingQueue<String>();
    try (var client = new KubernetesClientBuilder().build()) {
      var maps = client.configMaps().inNamespace("default");
      var watch = maps.watch(new Watcher<ConfigMap>() {
        public void eventReceived(Action action, ConfigMap map) {
          if (map.getMetadata().getName().equals("seen")) watched.add("watch " + action);
        }
        public void onClose(WatcherException why) {}
      });
      var informer = maps.inform(new ResourceEventHandler<ConfigMap>() {
        public void onAdd(ConfigMap map) { add("add", map); }
        public void onUpdate(ConfigMap old, ConfigMap map) { add("update", map); }
        public void onDelete(ConfigMap map, boolean unknown) { add("delete", map); }
        void add(String what, ConfigMap map) {
          if (map.getMetadata().getName().equals("seen")) informed.add("inform " + what);
        }
      });
      var map = new ConfigMapBuilder().withNewMetadata().withName("seen").endMetadata().build();
      maps.resource(map).serverSideApply();
      maps.withName("seen").edit(found -> new ConfigMapBuilder(found).addToData("a", "b").build());
      maps.withName("seen").delete();
      for (var seen : new LinkedBlockingQueue[] {watched, informed})
        for (int count = 0; count < 3; count++) System.out.println(seen.poll(30, TimeUnit.SECONDS));
      try {
        client.pods().inNamespace("default").withName("absent").writingOutput(System.out).exec("ls").close();
      } catch (KubernetesClientException refused) {
        System.out.println("exec refused");
      }
      informer.stop();
      watch.close();
    }
  }
}
