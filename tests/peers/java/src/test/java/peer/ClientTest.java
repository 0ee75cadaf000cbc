package peer;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertNotNull;
import static org.junit.jupiter.api.Assertions.assertNull;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import io.fabric8.kubernetes.api.model.ConfigMap;
import io.fabric8.kubernetes.api.model.ConfigMapBuilder;
import io.fabric8.kubernetes.api.model.ConfigMapList;
import io.fabric8.kubernetes.api.model.GenericKubernetesResource;
import io.fabric8.kubernetes.api.model.GenericKubernetesResourceBuilder;
import io.fabric8.kubernetes.api.model.GenericKubernetesResourceList;
import io.fabric8.kubernetes.api.model.ListOptionsBuilder;
import io.fabric8.kubernetes.api.model.NamespaceBuilder;
import io.fabric8.kubernetes.api.model.Pod;
import io.fabric8.kubernetes.api.model.PodBuilder;
import io.fabric8.kubernetes.api.model.apiextensions.v1.CustomResourceDefinition;
import io.fabric8.kubernetes.api.model.apps.DeploymentBuilder;
import io.fabric8.kubernetes.client.KubernetesClient;
import io.fabric8.kubernetes.client.KubernetesClientBuilder;
import io.fabric8.kubernetes.client.KubernetesClientException;
import io.fabric8.kubernetes.client.Watcher;
import io.fabric8.kubernetes.client.WatcherException;
import io.fabric8.kubernetes.client.dsl.NonNamespaceOperation;
import io.fabric8.kubernetes.client.dsl.Resource;
import io.fabric8.kubernetes.client.dsl.base.PatchContext;
import io.fabric8.kubernetes.client.dsl.base.PatchType;
import io.fabric8.kubernetes.client.dsl.base.ResourceDefinitionContext;
import io.fabric8.kubernetes.client.extended.leaderelection.LeaderCallbacks;
import io.fabric8.kubernetes.client.extended.leaderelection.LeaderElectionConfigBuilder;
import io.fabric8.kubernetes.client.extended.leaderelection.resourcelock.LeaseLock;
import io.fabric8.kubernetes.client.informers.ResourceEventHandler;
import java.io.ByteArrayOutputStream;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.LinkedBlockingQueue;
import java.util.concurrent.TimeUnit;
import org.junit.jupiter.api.AfterAll;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;

/** Tests of fabric8's client: what its users call, on a cluster without nodes. */
@Timeout(60)
class ClientTest {
  static final String NAMESPACE = "fabric8";
  static final ResourceDefinitionContext WIDGETS =
      new ResourceDefinitionContext.Builder()
          .withGroup("example.com").withVersion("v1").withKind("Widget").withPlural("widgets").withNamespaced(true)
          .build();
  static final String DEFINITION = """
      apiVersion: apiextensions.k8s.io/v1
      kind: CustomResourceDefinition
      metadata: {name: widgets.example.com}
      spec:
        group: example.com
        scope: Namespaced
        names: {plural: widgets, singular: widget, kind: Widget}
        versions:
        - name: v1
          served: true
          storage: true
          subresources: {status: {}}
          schema:
            openAPIV3Schema:
              type: object
              properties:
                spec: {type: object, properties: {size: {type: integer, minimum: 1}}}
                status: {type: object, properties: {phase: {type: string}}}
      """;
  static KubernetesClient client;

  @BeforeAll
  static void start() {
    client = new KubernetesClientBuilder().build();
    client.resource(new NamespaceBuilder().withNewMetadata().withName(NAMESPACE).endMetadata().build()).create();
    client.resource(DEFINITION).create();
    client.apiextensions().v1().customResourceDefinitions().withName("widgets.example.com")
        .waitUntilCondition(ClientTest::established, 30, TimeUnit.SECONDS);
  }

  @AfterAll
  static void stop() {
    client.close();
  }

  static boolean established(CustomResourceDefinition definition) {
    return definition != null && definition.getStatus() != null && definition.getStatus().getConditions().stream()
        .anyMatch(each -> each.getType().equals("Established") && each.getStatus().equals("True"));
  }

  static NonNamespaceOperation<ConfigMap, ConfigMapList, Resource<ConfigMap>> maps() {
    return client.configMaps().inNamespace(NAMESPACE);
  }

  static NonNamespaceOperation<
      GenericKubernetesResource, GenericKubernetesResourceList, Resource<GenericKubernetesResource>> widgets() {
    return client.genericKubernetesResources(WIDGETS).inNamespace(NAMESPACE);
  }

  static ConfigMap map(String name, String... data) {
    var builder = new ConfigMapBuilder().withNewMetadata().withName(name).withNamespace(NAMESPACE).endMetadata();
    for (int at = 0; at < data.length; at += 2) builder.addToData(data[at], data[at + 1]);
    return builder.build();
  }

  static ConfigMap labeled(String name, String label) {
    return new ConfigMapBuilder(map(name)).editMetadata().addToLabels("set", label).endMetadata().build();
  }

  static GenericKubernetesResource widget(String name, int size) {
    return new GenericKubernetesResourceBuilder()
        .withApiVersion("example.com/v1").withKind("Widget")
        .withNewMetadata().withName(name).withNamespace(NAMESPACE).endMetadata()
        .addToAdditionalProperties("spec", Map.of("size", size))
        .build();
  }

  static Pod pod(String name) {
    return new PodBuilder()
        .withNewMetadata().withName(name).withNamespace(NAMESPACE).endMetadata()
        .withNewSpec().addNewContainer().withName("a").withImage("a").endContainer().endSpec()
        .build();
  }

  static void refused(int code, org.junit.jupiter.api.function.Executable request) {
    assertEquals(code, assertThrows(KubernetesClientException.class, request).getCode());
  }

  static List<String> take(LinkedBlockingQueue<String> seen, int count) throws InterruptedException {
    var taken = new ArrayList<String>();
    for (int at = 0; at < count; at++) taken.add(seen.poll(30, TimeUnit.SECONDS));
    return taken;
  }

  @Test
  void version() {
    assertEquals("1.36", client.getKubernetesVersion().getMajor() + "." + client.getKubernetesVersion().getMinor());
  }

  @Test
  void createGetUpdateDelete() {
    var made = maps().resource(map("a", "key", "1")).create();
    assertNotNull(made.getMetadata().getUid());
    made.setData(Map.of("key", "2"));
    maps().resource(made).update();
    assertEquals(Map.of("key", "2"), maps().withName("a").get().getData());
    assertEquals(1, maps().withName("a").delete().size());
    assertNull(maps().withName("a").get());
    assertTrue(maps().withName("a").delete().isEmpty());
  }

  @Test
  void secondCreate() {
    maps().resource(map("twice")).create();
    refused(409, () -> maps().resource(map("twice")).create());
  }

  @Test
  void updateOfAnOldVersion() {
    var old = maps().resource(map("old")).create();
    maps().withName("old").edit(found -> new ConfigMapBuilder(found).addToData("a", "b").build());
    refused(409, () -> maps().resource(old).update());
  }

  @Test
  void invalidObject() {
    refused(422, () -> maps().resource(map("Not_valid")).create());
  }

  @Test
  void dryRun() {
    maps().resource(map("dry")).dryRun().create();
    assertNull(maps().withName("dry").get());
  }

  @Test
  void pages() {
    for (var name : List.of("p1", "p2", "p3")) maps().resource(labeled(name, "paged")).create();
    var first = maps().withLabel("set", "paged").list(new ListOptionsBuilder().withLimit(2L).build());
    assertEquals(2, first.getItems().size());
    var next = new ListOptionsBuilder().withLimit(2L).withContinue(first.getMetadata().getContinue()).build();
    assertEquals("p3", maps().withLabel("set", "paged").list(next).getItems().get(0).getMetadata().getName());
  }

  @Test
  void fieldSelector() {
    maps().resource(map("selected")).create();
    assertEquals(1, maps().withField("metadata.name", "selected").list().getItems().size());
  }

  @Test
  void deleteOfACollection() {
    for (var name : List.of("c1", "c2")) maps().resource(labeled(name, "swept")).create();
    maps().withLabel("set", "swept").delete();
    assertTrue(maps().withLabel("set", "swept").list().getItems().isEmpty());
  }

  @Test
  void finalizer() {
    var kept = new ConfigMapBuilder(map("kept")).editMetadata().addToFinalizers("example.com/keep").endMetadata();
    maps().resource(kept.build()).create();
    maps().withName("kept").delete();
    assertNotNull(maps().withName("kept").get().getMetadata().getDeletionTimestamp());
    maps().withName("kept").edit(found ->
        new ConfigMapBuilder(found).editMetadata().withFinalizers(List.of()).endMetadata().build());
    assertNull(maps().withName("kept").get());
  }

  @Test
  void editIsAJsonPatch() {
    maps().resource(map("edited", "a", "1")).create();
    var found = maps().withName("edited").edit(each -> new ConfigMapBuilder(each).addToData("b", "2").build());
    assertEquals(Map.of("a", "1", "b", "2"), found.getData());
  }

  @Test
  void mergePatch() {
    maps().resource(map("merged", "a", "1", "b", "2")).create();
    var found = maps().withName("merged").patch(PatchContext.of(PatchType.JSON_MERGE), "{\"data\":{\"a\":null}}");
    assertEquals(Map.of("b", "2"), found.getData());
  }

  @Test
  void strategicMergePatch() {
    var deployment = new DeploymentBuilder()
        .withNewMetadata().withName("strategic").withNamespace(NAMESPACE).endMetadata()
        .withNewSpec()
        .withNewSelector().addToMatchLabels("app", "a").endSelector()
        .withNewTemplate()
        .withNewMetadata().addToLabels("app", "a").endMetadata()
        .withSpec(pod("a").getSpec())
        .endTemplate()
        .endSpec()
        .build();
    client.resource(deployment).create();
    var patch = "{\"spec\":{\"template\":{\"spec\":{\"containers\":[{\"name\":\"b\",\"image\":\"b\"}]}}}}";
    var found = client.apps().deployments().inNamespace(NAMESPACE).withName("strategic")
        .patch(PatchContext.of(PatchType.STRATEGIC_MERGE), patch);
    assertEquals(2, found.getSpec().getTemplate().getSpec().getContainers().size());
    assertEquals(3, client.apps().deployments().inNamespace(NAMESPACE).withName("strategic").scale(3).getSpec().getReplicas());
  }

  @Test
  void serverSideApply() {
    maps().resource(map("applied", "a", "1")).fieldManager("first").serverSideApply();
    refused(409, () -> maps().resource(map("applied", "a", "2")).fieldManager("second").serverSideApply());
    var forced = maps().resource(map("applied", "a", "2")).fieldManager("second").forceConflicts().serverSideApply();
    assertEquals(Map.of("a", "2"), forced.getData());
    assertEquals("second", forced.getMetadata().getManagedFields().get(0).getManager());
  }

  @Test
  void customResources() {
    widgets().resource(widget("w", 1)).create();
    refused(422, () -> widgets().resource(widget("wrong", 0)).create());
    widgets().withName("w").editStatus(found -> {
      found.setAdditionalProperty("status", Map.of("phase", "Ready"));
      return found;
    });
    var found = widgets().withName("w").get();
    assertEquals("Ready", found.<String>get("status", "phase"));
    assertEquals(1L, found.getMetadata().getGeneration());
    assertEquals(1, widgets().list().getItems().size());
    widgets().withName("w").delete();
  }

  @Test
  void watch() throws Exception {
    var seen = new LinkedBlockingQueue<String>();
    var watch = maps().withName("watched").watch(new Watcher<ConfigMap>() {
      public void eventReceived(Action action, ConfigMap map) {
        seen.add(action + " " + map.getData());
      }

      public void onClose(WatcherException why) {
        seen.add("closed");
      }
    });
    maps().resource(map("watched", "a", "1")).create();
    maps().withName("watched").edit(found -> new ConfigMapBuilder(found).addToData("a", "2").build());
    maps().withName("watched").delete();
    assertEquals(List.of("ADDED {a=1}", "MODIFIED {a=2}", "DELETED {a=2}"), take(seen, 3));
    watch.close();
  }

  @Test
  void watchOfCustomResources() throws Exception {
    var seen = new LinkedBlockingQueue<String>();
    try (var watch = widgets().withName("seen").watch(new Watcher<GenericKubernetesResource>() {
      public void eventReceived(Action action, GenericKubernetesResource widget) {
        seen.add(action + " " + widget.getKind());
      }

      public void onClose(WatcherException why) {}
    })) {
      widgets().resource(widget("seen", 1)).create();
      widgets().withName("seen").delete();
      assertEquals(List.of("ADDED Widget", "DELETED Widget"), take(seen, 2));
    }
  }

  @Test
  void informer() throws Exception {
    var seen = new LinkedBlockingQueue<String>();
    maps().resource(labeled("before", "informed")).create();
    try (var informer = maps().withLabel("set", "informed").inform(new ResourceEventHandler<ConfigMap>() {
      public void onAdd(ConfigMap map) {
        seen.add("add " + map.getMetadata().getName());
      }

      public void onUpdate(ConfigMap old, ConfigMap map) {
        seen.add("update " + map.getMetadata().getName());
      }

      public void onDelete(ConfigMap map, boolean unknown) {
        seen.add("delete " + map.getMetadata().getName());
      }
    })) {
      assertEquals(1, informer.getStore().list().size());
      maps().resource(labeled("informed", "informed")).create();
      maps().withName("informed").edit(found -> new ConfigMapBuilder(found).addToData("a", "b").build());
      maps().withName("informed").delete();
      assertEquals(List.of("add before", "add informed", "update informed", "delete informed"), take(seen, 4));
    }
  }

  @Test
  void waitUntilCondition() {
    maps().resource(map("awaited")).create();
    var waiting = CompletableFuture.supplyAsync(() ->
        maps().withName("awaited").waitUntilCondition(found -> found.getData() != null && found.getData().containsKey("a"), 30, TimeUnit.SECONDS));
    maps().withName("awaited").edit(found -> new ConfigMapBuilder(found).addToData("a", "b").build());
    assertEquals("b", waiting.join().getData().get("a"));
  }

  @Test
  void leaderElection() throws Exception {
    var leader = new LinkedBlockingQueue<String>();
    var config = new LeaderElectionConfigBuilder()
        .withName("peer")
        .withLock(new LeaseLock(NAMESPACE, "leader", "first"))
        .withLeaseDuration(Duration.ofSeconds(15))
        .withRenewDeadline(Duration.ofSeconds(10))
        .withRetryPeriod(Duration.ofSeconds(1))
        .withReleaseOnCancel(true)
        .withLeaderCallbacks(new LeaderCallbacks(() -> leader.add("started"), () -> leader.add("stopped"), leader::add))
        .build();
    var elector = client.leaderElector().withConfig(config).build();
    var running = elector.start();
    assertTrue(take(leader, 2).containsAll(List.of("first", "started")));
    assertEquals("first", client.leases().inNamespace(NAMESPACE).withName("leader").get().getSpec().getHolderIdentity());
    running.cancel(true);
    assertTrue(take(leader, 2).contains("stopped"));
  }

  @Test
  void discovery() {
    assertTrue(client.hasApiGroup("example.com", true));
    assertFalse(client.hasApiGroup("absent.example.com", true));
    assertTrue(client.supports(Pod.class));
  }

  @Test
  void execIsRefused() {
    client.resource(pod("idle")).create();
    assertThrows(KubernetesClientException.class, () -> client.pods().inNamespace(NAMESPACE).withName("idle")
        .writingOutput(new ByteArrayOutputStream()).exec("ls").exitCode().get(20, TimeUnit.SECONDS));
  }

  @Test
  void logOfAnAbsentPod() {
    refused(404, () -> client.pods().inNamespace(NAMESPACE).withName("absent").getLog());
  }

  @Test
  void eviction() {
    client.resource(pod("evicted")).create();
    assertTrue(client.pods().inNamespace(NAMESPACE).withName("evicted").evict());
    assertNull(client.pods().inNamespace(NAMESPACE).withName("evicted").get());
  }
}
