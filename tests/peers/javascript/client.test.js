// Tests of @kubernetes/client-node: what its users call, on a cluster without nodes.
import assert from "node:assert/strict";
import { once } from "node:events";
import { PassThrough } from "node:stream";
import { after, before, describe, test } from "node:test";
import * as k8s from "@kubernetes/client-node";

const namespace = "client-node";
const config = new k8s.KubeConfig();
config.loadFromDefault();
const core = config.makeApiClient(k8s.CoreV1Api);
const apps = config.makeApiClient(k8s.AppsV1Api);
const custom = config.makeApiClient(k8s.CustomObjectsApi);
const objects = k8s.KubernetesObjectApi.makeApiClient(config);
const widgets = { group: "example.com", version: "v1", plural: "widgets", namespace };

const map = (name, data, more = {}) => ({ apiVersion: "v1", kind: "ConfigMap", metadata: { name, namespace, ...more }, data });
const widget = (name, size) => ({ apiVersion: "example.com/v1", kind: "Widget", metadata: { name, namespace }, spec: { size } });
const pod = (name) => ({ metadata: { name }, spec: { containers: [{ name: "a", image: "a" }] } });
const as = (strategy) => k8s.setHeaderOptions("Content-Type", strategy);
const refused = (code, reason) => (error) => {
  assert.equal(error.code, code);
  const status = typeof error.body === "string" ? JSON.parse(error.body) : error.body;
  assert.equal(status.reason, reason);
  return true;
};

/** A list that grows; `until` waits for its length. */
class Seen extends Array {
  waiting = () => {};
  add(what) {
    this.push(what);
    this.waiting();
  }
  async until(length) {
    const deadline = AbortSignal.timeout(20_000);
    while (this.length < length) {
      await new Promise((resolve, reject) => {
        this.waiting = resolve;
        deadline.onabort = () => reject(new Error(`only ${this.join(", ")}`));
      });
    }
    return [...this];
  }
}

before(async () => {
  await core.createNamespace({ body: { metadata: { name: namespace } } });
  const schema = {
    type: "object",
    properties: {
      spec: { type: "object", properties: { size: { type: "integer", minimum: 1 } } },
      status: { type: "object", properties: { phase: { type: "string" } } },
    },
  };
  const version = { name: "v1", served: true, storage: true, schema: { openAPIV3Schema: schema }, subresources: { status: {} } };
  const extensions = config.makeApiClient(k8s.ApiextensionsV1Api);
  await extensions.createCustomResourceDefinition({
    body: {
      metadata: { name: "widgets.example.com" },
      spec: { group: "example.com", scope: "Namespaced", names: { plural: "widgets", singular: "widget", kind: "Widget" }, versions: [version] },
    },
  });
  for (let tries = 0; tries < 100; tries++) {
    const found = await extensions.readCustomResourceDefinition({ name: "widgets.example.com" });
    if (found.status?.conditions?.some((each) => each.type === "Established" && each.status === "True")) break;
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
});

after(() => core.deleteNamespace({ name: namespace }));

describe("requests", () => {
  test("version", async () => {
    const { major, minor } = await config.makeApiClient(k8s.VersionApi).getCode();
    assert.deepEqual([major, minor], ["1", "36"]);
  });

  test("create, read, replace, delete", async () => {
    const made = await core.createNamespacedConfigMap({ namespace, body: map("a", { key: "1" }) });
    assert.ok(made.metadata.creationTimestamp instanceof Date);
    made.data.key = "2";
    await core.replaceNamespacedConfigMap({ namespace, name: "a", body: made });
    assert.deepEqual((await core.readNamespacedConfigMap({ namespace, name: "a" })).data, { key: "2" });
    await core.deleteNamespacedConfigMap({ namespace, name: "a" });
    await assert.rejects(core.readNamespacedConfigMap({ namespace, name: "a" }), refused(404, "NotFound"));
  });

  test("dry run", async () => {
    await core.createNamespacedConfigMap({ namespace, body: map("dry"), dryRun: "All" });
    await assert.rejects(core.readNamespacedConfigMap({ namespace, name: "dry" }), refused(404, "NotFound"));
  });

  test("generated name", async () => {
    const body = { metadata: { generateName: "generated-" } };
    const made = await core.createNamespacedConfigMap({ namespace, body });
    assert.match(made.metadata.name, /^generated-[a-z0-9]{5}$/);
  });

  test("binary data and quantities", async () => {
    const body = { metadata: { name: "bytes" }, stringData: { text: "é" }, data: { raw: Buffer.from([0, 255]).toString("base64") } };
    const made = await core.createNamespacedSecret({ namespace, body });
    assert.deepEqual(made.data, { raw: "AP8=", text: "w6k=" });
    const limited = pod("quantities");
    limited.spec.containers[0].resources = { limits: { cpu: "0.5", memory: "1024Mi" } };
    const { spec } = await core.createNamespacedPod({ namespace, body: limited });
    assert.deepEqual(spec.containers[0].resources.limits, { cpu: "500m", memory: "1Gi" });
  });

  test("a second create", async () => {
    await core.createNamespacedConfigMap({ namespace, body: map("twice") });
    await assert.rejects(core.createNamespacedConfigMap({ namespace, body: map("twice") }), refused(409, "AlreadyExists"));
  });

  test("a replace of an old version", async () => {
    const old = await core.createNamespacedConfigMap({ namespace, body: map("old") });
    await core.replaceNamespacedConfigMap({ namespace, name: "old", body: { ...old, data: { a: "b" } } });
    await assert.rejects(core.replaceNamespacedConfigMap({ namespace, name: "old", body: old }), refused(409, "Conflict"));
  });

  test("an invalid object", async () => {
    await assert.rejects(core.createNamespacedConfigMap({ namespace, body: map("Not_valid") }), refused(422, "Invalid"));
  });

  test("an unknown field", async () => {
    const body = { ...widget("strict", 1), bogus: 1 };
    await assert.rejects(custom.createNamespacedCustomObject({ ...widgets, body, fieldValidation: "Strict" }), refused(400, "BadRequest"));
  });

  test("pages", async () => {
    for (const name of ["p1", "p2", "p3"]) await core.createNamespacedConfigMap({ namespace, body: map(name, {}, { labels: { paged: "yes" } }) });
    const names = [];
    let page = { metadata: { _continue: undefined } };
    do {
      page = await core.listNamespacedConfigMap({ namespace, labelSelector: "paged=yes", limit: 2, _continue: page.metadata._continue });
      names.push(page.items.map((each) => each.metadata.name));
    } while (page.metadata._continue);
    assert.deepEqual(names, [["p1", "p2"], ["p3"]]);
  });

  test("field selector", async () => {
    await core.createNamespacedConfigMap({ namespace, body: map("selected") });
    const found = await core.listNamespacedConfigMap({ namespace, fieldSelector: "metadata.name=selected" });
    assert.deepEqual(found.items.map((each) => each.metadata.name), ["selected"]);
  });

  test("delete of a collection", async () => {
    for (const name of ["c1", "c2"]) await core.createNamespacedConfigMap({ namespace, body: map(name, {}, { labels: { swept: "yes" } }) });
    await core.deleteCollectionNamespacedConfigMap({ namespace, labelSelector: "swept=yes" });
    assert.deepEqual((await core.listNamespacedConfigMap({ namespace, labelSelector: "swept=yes" })).items, []);
  });

  test("a finalizer", async () => {
    await core.createNamespacedConfigMap({ namespace, body: map("kept", {}, { finalizers: ["example.com/keep"] }) });
    await core.deleteNamespacedConfigMap({ namespace, name: "kept" });
    const kept = await core.readNamespacedConfigMap({ namespace, name: "kept" });
    assert.ok(kept.metadata.deletionTimestamp instanceof Date);
    await core.replaceNamespacedConfigMap({ namespace, name: "kept", body: { ...kept, metadata: { ...kept.metadata, finalizers: [] } } });
    await assert.rejects(core.readNamespacedConfigMap({ namespace, name: "kept" }), refused(404, "NotFound"));
  });

  test("health", async () => {
    assert.equal(await new k8s.Health(config).readyz({}), true);
    assert.equal(await new k8s.Health(config).livez({}), true);
  });

  test("who am I", async () => {
    const review = await config.makeApiClient(k8s.AuthenticationV1Api).createSelfSubjectReview({ body: {} });
    assert.ok(review.status.userInfo.groups.includes("system:authenticated"));
  });

  test("what may I do", async () => {
    const body = { spec: { resourceAttributes: { verb: "create", resource: "configmaps", namespace } } };
    const review = await config.makeApiClient(k8s.AuthorizationV1Api).createSelfSubjectAccessReview({ body });
    assert.equal(review.status.allowed, true);
  });

  test("discovery", async () => {
    const groups = await config.makeApiClient(k8s.ApisApi).getAPIVersions();
    assert.ok(groups.groups.some((group) => group.name === "example.com"));
    const { resources } = await core.getAPIResources();
    assert.ok(resources.some((each) => each.name === "pods/eviction" && each.kind === "Eviction"));
  });
});

describe("patches", () => {
  const patch = async (name, body, strategy) => {
    await core.createNamespacedConfigMap({ namespace, body: map(name, { a: "1", b: "2" }) });
    return (await core.patchNamespacedConfigMap({ namespace, name, body }, as(strategy))).data;
  };

  test("JSON", async () => {
    const body = [{ op: "replace", path: "/data/a", value: "3" }, { op: "remove", path: "/data/b" }];
    assert.deepEqual(await patch("json", body, k8s.PatchStrategy.JsonPatch), { a: "3" });
  });

  test("a failed test of a JSON patch", async () => {
    const body = [{ op: "test", path: "/data/a", value: "9" }];
    await assert.rejects(patch("tested", body, k8s.PatchStrategy.JsonPatch), refused(422, "Invalid"));
  });

  test("merge", async () => {
    assert.deepEqual(await patch("merge", { data: { a: null, c: "3" } }, k8s.PatchStrategy.MergePatch), { b: "2", c: "3" });
  });

  test("strategic merge", async () => {
    const template = { metadata: { labels: { app: "a" } }, spec: { containers: [{ name: "a", image: "a" }, { name: "b", image: "b" }] } };
    const spec = { selector: { matchLabels: { app: "a" } }, template };
    await apps.createNamespacedDeployment({ namespace, body: { metadata: { name: "strategic" }, spec } });
    const body = { spec: { template: { spec: { containers: [{ name: "b", image: "c" }] } } } };
    const found = await apps.patchNamespacedDeployment({ namespace, name: "strategic", body }, as(k8s.PatchStrategy.StrategicMergePatch));
    assert.deepEqual(found.spec.template.spec.containers.map((each) => each.image).sort(), ["a", "c"]);
  });

  test("apply", async () => {
    const apply = (data, fieldManager, force) =>
      core.patchNamespacedConfigMap(
        { namespace, name: "applied", body: map("applied", data), fieldManager, force },
        as(k8s.PatchStrategy.ServerSideApply),
      );
    await apply({ a: "1" }, "first");
    await assert.rejects(apply({ a: "2" }, "second"), refused(409, "Conflict"));
    const forced = await apply({ a: "2", b: "3" }, "second", true);
    assert.deepEqual(forced.metadata.managedFields.map((each) => [each.manager, each.operation]), [["second", "Apply"]]);
    assert.deepEqual((await apply({ a: "2" }, "second")).data, { a: "2" });
  });

  test("scale", async () => {
    const spec = { selector: { matchLabels: { app: "s" } }, template: { metadata: { labels: { app: "s" } }, ...pod() } };
    spec.template.metadata = { labels: { app: "s" } };
    await apps.createNamespacedDeployment({ namespace, body: { metadata: { name: "scaled" }, spec } });
    const body = { spec: { replicas: 3 } };
    await apps.patchNamespacedDeploymentScale({ namespace, name: "scaled", body }, as(k8s.PatchStrategy.MergePatch));
    assert.equal((await apps.readNamespacedDeploymentScale({ namespace, name: "scaled" })).spec.replicas, 3);
    assert.equal((await apps.readNamespacedDeployment({ namespace, name: "scaled" })).spec.replicas, 3);
  });
});

describe("custom objects", () => {
  test("create, patch of the status, list, delete", async () => {
    await custom.createNamespacedCustomObject({ ...widgets, body: widget("w", 1) });
    const status = [{ op: "add", path: "/status", value: { phase: "Ready" } }];
    await custom.patchNamespacedCustomObjectStatus({ ...widgets, name: "w", body: status }, as(k8s.PatchStrategy.JsonPatch));
    const found = await custom.getNamespacedCustomObject({ ...widgets, name: "w" });
    assert.deepEqual([found.spec.size, found.status.phase, found.metadata.generation], [1, "Ready", 1]);
    assert.equal((await custom.listNamespacedCustomObject(widgets)).items.length, 1);
    await custom.deleteNamespacedCustomObject({ ...widgets, name: "w" });
    await assert.rejects(custom.getNamespacedCustomObject({ ...widgets, name: "w" }), refused(404, "NotFound"));
  });

  test("an invalid one", async () => {
    await assert.rejects(custom.createNamespacedCustomObject({ ...widgets, body: widget("wrong", 0) }), refused(422, "Invalid"));
  });
});

describe("objects of any kind", () => {
  test("manifests in YAML", async () => {
    const manifest = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: y1}\ndata: {a: b}\n---\napiVersion: example.com/v1\nkind: Widget\nmetadata: {name: y2}\nspec: {size: 2}\n";
    for (const each of k8s.loadAllYaml(manifest)) {
      each.metadata.namespace = namespace;
      await objects.create(each);
      assert.ok((await objects.read(each)).metadata.uid);
      await objects.delete(each);
      await assert.rejects(objects.read(each), refused(404, "NotFound"));
    }
  });

  test("apply", async () => {
    const apply = (size) => objects.patch(widget("any", size), undefined, undefined, "peer", true, k8s.PatchStrategy.ServerSideApply);
    assert.equal((await apply(1)).metadata.generation, 1);
    assert.equal((await apply(2)).metadata.generation, 2);
    assert.equal((await objects.replace({ ...(await apply(2)), spec: { size: 5 } })).spec.size, 5);
  });

  test("list", async () => {
    await objects.create(widget("listed", 1));
    const found = await objects.list("example.com/v1", "Widget", namespace, undefined, undefined, undefined, "metadata.name=listed");
    assert.deepEqual(found.items.map((each) => [each.kind, each.metadata.name]), [["Widget", "listed"]]);
  });
});

describe("watches", () => {
  const change = async (name) => {
    await core.createNamespacedConfigMap({ namespace, body: map(name, { a: "1" }) });
    await core.patchNamespacedConfigMap({ namespace, name, body: { data: { a: "2" } } }, as(k8s.PatchStrategy.MergePatch));
    await core.deleteNamespacedConfigMap({ namespace, name });
  };
  const path = `/api/v1/namespaces/${namespace}/configmaps`;

  test("events", async () => {
    const seen = new Seen();
    const query = { fieldSelector: "metadata.name=watched" };
    const controller = await new k8s.Watch(config).watch(path, query, (type, object) => seen.add(`${type} ${object.data.a}`), () => {});
    await change("watched");
    assert.deepEqual(await seen.until(3), ["ADDED 1", "MODIFIED 2", "DELETED 2"]);
    controller.abort();
  });

  test("custom objects", async () => {
    const seen = new Seen();
    const at = `/apis/example.com/v1/namespaces/${namespace}/widgets`;
    const query = { fieldSelector: "metadata.name=seen" };
    const controller = await new k8s.Watch(config).watch(at, query, (type, object) => seen.add(`${type} ${object.kind}`), () => {});
    await custom.createNamespacedCustomObject({ ...widgets, body: widget("seen", 1) });
    await custom.deleteNamespacedCustomObject({ ...widgets, name: "seen" });
    assert.deepEqual(await seen.until(2), ["ADDED Widget", "DELETED Widget"]);
    controller.abort();
  });

  test("a bookmark, and the end after a second", async () => {
    const seen = new Seen();
    const query = { timeoutSeconds: 1, allowWatchBookmarks: true, sendInitialEvents: true, resourceVersionMatch: "NotOlderThan" };
    const bookmarks = (type, object) => type === "BOOKMARK" && seen.add(Object.keys(object.metadata.annotations ?? {}).join());
    await new k8s.Watch(config).watch(path, query, bookmarks, () => seen.add("end"));
    const found = await seen.until(2);
    assert.deepEqual([found[0], found.at(-1)], ["k8s.io/initial-events-end", "end"]);
  });

  test("from an invalid version", async () => {
    const error = await new Promise((resolve) => {
      new k8s.Watch(config).watch(path, { resourceVersion: "x" }, () => {}, resolve).catch(resolve);
    });
    assert.match(error.message, /Internal Server Error/);
  });

  test("an informer", async () => {
    const seen = new Seen();
    const list = () => core.listNamespacedConfigMap({ namespace });
    await core.createNamespacedConfigMap({ namespace, body: map("before") });
    const informer = k8s.makeInformer(config, path, list);
    for (const event of ["add", "update", "delete"])
      informer.on(event, (object) => ["before", "informed"].includes(object.metadata.name) && seen.add(`${event} ${object.metadata.name}`));
    await informer.start();
    assert.equal(informer.get("before", namespace).metadata.name, "before");
    await change("informed");
    assert.deepEqual(await seen.until(4), ["add before", "add informed", "update informed", "delete informed"]);
    assert.equal(informer.get("informed", namespace), undefined);
    await informer.stop();
  });

  test("an informer with a selector", async () => {
    const seen = new Seen();
    const labelSelector = "chosen=yes";
    const list = () => core.listNamespacedConfigMap({ namespace, labelSelector });
    const informer = k8s.makeInformer(config, path, list, labelSelector);
    for (const event of ["add", "delete"]) informer.on(event, (object) => seen.add(`${event} ${object.metadata.name}`));
    await informer.start();
    await core.createNamespacedConfigMap({ namespace, body: map("not-chosen") });
    await core.createNamespacedConfigMap({ namespace, body: map("chosen", {}, { labels: { chosen: "yes" } }) });
    const body = { metadata: { labels: { chosen: "no" } } };
    await core.patchNamespacedConfigMap({ namespace, name: "chosen", body }, as(k8s.PatchStrategy.MergePatch));
    assert.deepEqual(await seen.until(2), ["add chosen", "delete chosen"]);
    await informer.stop();
  });
});

describe("pods without a node", () => {
  before(() => core.createNamespacedPod({ namespace, body: pod("idle") }));

  test("eviction", async () => {
    await core.createNamespacedPod({ namespace, body: pod("evicted") });
    await core.createNamespacedPodEviction({ namespace, name: "evicted", body: { metadata: { name: "evicted" } } });
    await assert.rejects(core.readNamespacedPod({ namespace, name: "evicted" }), refused(404, "NotFound"));
  });

  test("exec is refused", async () => {
    await assert.rejects(new k8s.Exec(config).exec(namespace, "idle", "a", ["ls"], new PassThrough(), new PassThrough(), null, false));
  });

  test("attach is refused", async () => {
    await assert.rejects(new k8s.Attach(config).attach(namespace, "idle", "a", new PassThrough(), new PassThrough(), null, false));
  });

  test("port-forward is refused", async () => {
    const output = new PassThrough();
    const ended = once(output, "close").catch(() => {});
    await assert.rejects(async () => {
      await new k8s.PortForward(config, true, 0).portForward(namespace, "idle", [80], output, null, new PassThrough(), 0);
      await Promise.race([ended, new Promise((resolve) => setTimeout(resolve, 5000))]);
    });
  });

  test("logs of an absent pod", async () => {
    await assert.rejects(new k8s.Log(config).log(namespace, "absent", "a", new PassThrough()), (error) => error.code === 404);
    await assert.rejects(core.readNamespacedPodLog({ namespace, name: "absent" }), refused(404, "NotFound"));
  });

  test("metrics are absent", async () => {
    await assert.rejects(new k8s.Metrics(config).getNodeMetrics());
  });
});
