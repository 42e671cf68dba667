"""Patches of the three kinds: paths, nulls, directives and orders of lists. Dry runs over objects that stand; some are drawn."""
import copy, http.client, json, random, time

from server import brief, cleaned
from updates import setup

POD, DEPLOYMENT, SERVICE = "/api/v1/namespaces/default/pods", "/apis/apps/v1/namespaces/default/deployments", "/api/v1/namespaces/default/services"
MAP, ACCOUNT, NODE = "/api/v1/namespaces/default/configmaps", "/api/v1/namespaces/default/serviceaccounts", "/api/v1/nodes"
THING = "/apis/a.io/v1/namespaces/default/things"
DEFINITIONS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
DEFINITION = {"metadata": {"name": "things.a.io"}, "spec": {"group": "a.io", "scope": "Namespaced", "names": {"plural": "things", "kind": "Thing"},
    "versions": [{"name": "v1", "served": True, "storage": True, "subresources": {"status": {}}, "schema": {"openAPIV3Schema": {"type": "object", "properties": {
        "spec": {"type": "object", "properties": {"a": {"type": "string"}, "n": {"type": "integer", "minimum": 0}, "list": {"type": "array", "items": {"type": "string"}},
            "map": {"type": "object", "additionalProperties": {"type": "string"}}}}, "status": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}}}}}]}}

BASES = {
    DEPLOYMENT: {"metadata": {"name": "d", "labels": {"a": "b", "c": "d"}, "finalizers": ["a.io/one", "a.io/two", "a.io/three"]}, "spec": {
        "replicas": 2, "selector": {"matchLabels": {"a": "b"}},
        "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": "10%"}},
        "template": {"metadata": {"labels": {"a": "b"}}, "spec": {
            "volumes": [{"name": "v", "emptyDir": {}}, {"name": "m", "configMap": {"name": "m"}}, {"name": "w", "emptyDir": {"medium": "Memory"}}],
            "tolerations": [{"key": "k", "operator": "Exists"}],
            "hostAliases": [{"ip": "1.2.3.4", "hostnames": ["a", "b"]}],
            "containers": [
                {"name": "c", "image": "i", "command": ["a", "b"], "env": [{"name": "A", "value": "a"}, {"name": "B", "value": "b"}, {"name": "C", "value": "c"}],
                    "ports": [{"name": "http", "containerPort": 80}, {"name": "https", "containerPort": 443}],
                    "volumeMounts": [{"name": "v", "mountPath": "/v"}, {"name": "m", "mountPath": "/m"}], "resources": {"limits": {"cpu": "1", "memory": "1Gi"}}},
                {"name": "d", "image": "j"}]}}}},
    SERVICE: {"metadata": {"name": "s", "labels": {"a": "b"}}, "spec": {"type": "NodePort", "clusterIP": "10.96.0.78", "selector": {"a": "b"},
        "ports": [{"name": "a", "port": 80, "nodePort": 30180}, {"name": "b", "port": 81, "nodePort": 30181}, {"name": "c", "port": 81, "protocol": "UDP", "nodePort": 30182}]}},
    POD: {"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", "image": "i"}, {"name": "d", "image": "j"}], "tolerations": [{"key": "k", "operator": "Exists"}]}},
    MAP: {"metadata": {"name": "m", "labels": {"a": "b"}, "annotations": {"a/b": "d"}}, "data": {"k": "v", "l": "w", "a.b": "c"}},
    ACCOUNT: {"metadata": {"name": "a"}, "automountServiceAccountToken": False, "secrets": [{"name": "a"}, {"name": "b"}, {"name": "c"}], "imagePullSecrets": [{"name": "a"}]},
    NODE: {"metadata": {"name": "n"}, "spec": {"taints": [{"key": "k", "value": "v", "effect": "NoSchedule"}, {"key": "l", "effect": "NoSchedule"}]},
        "status": {"conditions": [{"type": "A", "status": "True"}, {"type": "B", "status": "True"}], "addresses": [{"type": "InternalIP", "address": "1.2.3.4"}, {"type": "Hostname", "address": "n"}]}},
    THING: {"apiVersion": "a.io/v1", "kind": "Thing", "metadata": {"name": "t", "labels": {"a": "b"}}, "spec": {"a": "x", "n": 5, "list": ["a", "b", "c"], "map": {"a": "b", "c": "d"}}},
}

TEMPLATE = "/spec/template/spec"


def pointers(value, at=""):
    yield at, value
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, member in items:
        yield from pointers(member, at + "/" + str(key).replace("~", "~0").replace("/", "~1"))


def json_patches(path, base):
    for at, value in pointers(base):
        if at in ("", "/apiVersion", "/kind"):
            continue
        if at.count("/") > (4 if path in (MAP, SERVICE, THING) else 3):
            continue
        new = "z" if isinstance(value, str) else 3 if isinstance(value, int) else value
        yield [{"op": "remove", "path": at}]
        yield [{"op": "replace", "path": at, "value": new}]
        if not isinstance(value, (dict, list)):
            yield [{"op": "test", "path": at, "value": value}]
            yield [{"op": "add", "path": at, "value": new}]
    if path not in (MAP, THING):
        return
    yield []
    yield {}
    yield "x"
    yield [1]
    for at in ["", "/", "/nope", "/nope/x", "/metadata/nope", "/metadata/labels/nope", "metadata", "/metadata/labels/", "/metadata/name", "/metadata/labels/a~1b", "/metadata/labels/a~2"]:
        for op in ["add", "replace", "remove", "test", "odd"]:
            yield [{"op": op, "path": at, "value": "z"}]
        yield [{"op": "test", "path": at, "value": None}]
        yield [{"op": "copy", "from": "/metadata/name", "path": at}]
        yield [{"op": "move", "from": at, "path": "/metadata/annotations"}]
    yield [{"op": "add", "path": "/metadata/labels", "value": None}]
    yield [{"op": "add", "path": "/metadata/labels/x", "value": None}]
    yield [{"op": "add", "path": "/metadata/labels/x", "value": 1}]
    yield [{"op": "add", "path": "/metadata/labels/x"}]
    yield [{"op": "replace", "path": "/metadata/labels"}]
    yield [{"path": "/metadata/labels/x", "value": "z"}]
    yield [{"op": "add", "value": "z"}]
    yield [{"op": "copy", "path": "/metadata/labels/x"}]
    yield [{"op": "move", "path": "/metadata/labels/x"}]
    yield [{"op": "move", "from": "/metadata/labels/a", "path": "/metadata/labels/x"}]
    yield [{"op": "move", "from": "/metadata/labels/a", "path": "/metadata/labels/a"}]
    yield [{"op": "move", "from": "/metadata", "path": "/metadata/labels"}]
    yield [{"op": "add", "path": "/metadata/resourceVersion", "value": "1"}]
    yield [{"op": "add", "path": "/metadata/uid", "value": "u"}]
    yield [{"op": "replace", "path": "/metadata/namespace", "value": "other"}]
    yield [{"op": "replace", "path": "/kind", "value": "Odd"}]
    yield [{"op": "replace", "path": "/apiVersion", "value": "v9"}]
    yield [{"op": "test", "path": "/metadata/name", "value": "nope"}, {"op": "add", "path": "/metadata/labels/x", "value": "z"}]
    yield [{"op": "add", "path": "/metadata/labels/x", "value": "z"}, {"op": "test", "path": "/metadata/labels/x", "value": "z"}, {"op": "remove", "path": "/metadata/labels/x"}]
    yield [{"op": "add", "path": "/metadata/labels/x", "value": "z", "unknown": 1}]
    yield [{"op": "ADD", "path": "/metadata/labels/x", "value": "z"}]
    for at in [at for at, value in pointers(base) if isinstance(value, list)]:
        for index in ["-", "0", "1", "01", "-1", "99", "x", "", "1.0", "+1"]:
            first = next(value for other, value in pointers(base) if other == at)[0]
            for op in ["add", "replace", "remove", "test"]:
                yield [{"op": op, "path": f"{at}/{index}", "value": first}]
            yield [{"op": "copy", "from": f"{at}/{index}", "path": f"{at}/-"}]


def nested(at, value):
    """The object in which only the member at a pointer stands. Lists are taken whole."""
    for key in reversed([key.replace("~1", "/").replace("~0", "~") for key in at.split("/")[1:]]):
        value = {key: value}
    return value


def merge_patches(path, base):
    for at, value in pointers(base):
        if at in ("", "/apiVersion", "/kind") or any(part.isdigit() for part in at.split("/")):
            continue
        for new in [None, "z", 3, {}, [], True, {"z": "z"}] if path in (MAP, THING, DEPLOYMENT) else [None, "z", {}]:
            yield nested(at, new)
    yield {}
    yield []
    yield None
    yield "x"
    yield {"nope": 1}
    yield {"nope": None}
    yield {"metadata": {"resourceVersion": "1"}}
    yield {"metadata": {"uid": "u"}}
    yield {"metadata": {"namespace": "other"}}
    yield {"metadata": {"labels": {"$patch": "replace", "x": "y"}}}
    yield {"metadata": {"labels": {"x": {"y": None}}}}
    yield {"metadata": {"labels": {"x": None, "y": "z"}}}
    yield {"metadata": {"annotations": {"x": "", "y": "z"}}}
    yield {"metadata": {"nope": {"y": None}}}


# Lists of which strategic merge patches know the keys: where they are, the key, items that are new.
LISTS = {
    DEPLOYMENT: [(TEMPLATE + "/volumes", "name"), (TEMPLATE + "/hostAliases", "ip"), (TEMPLATE + "/containers", "name"), (TEMPLATE + "/tolerations", None), ("/metadata/finalizers", None)],
    SERVICE: [("/spec/ports", "port")],
    POD: [("/spec/containers", "name"), ("/spec/tolerations", None)],
    ACCOUNT: [("/secrets", "name"), ("/imagePullSecrets", None)],
    NODE: [("/spec/taints", "key"), ("/status/conditions", "type"), ("/status/addresses", "type")],
    MAP: [],
    THING: [],
}
INNER = [("env", "name"), ("ports", "containerPort"), ("volumeMounts", "mountPath"), ("command", None)]
FRESH = {"name": "new", "ip": "2.3.4.5", "port": 99, "containerPort": 99, "mountPath": "/new", "key": "new", "type": "New"}


def owner_of(at, members):
    return nested(at.rsplit("/", 1)[0], members) if "/" in at[1:] else members


def list_patches(at, key, items, put):
    """What may be said of one list; `put` makes a patch of members of the map that holds the list."""
    name = at.rsplit("/", 1)[1]
    if key is None:
        for sent in [items[:1], items[::-1], [], None, ["a.io/new"], ["a.io/new"] + items[:1], items + ["a.io/new"], [{"$patch": "replace"}], ["a", "a"], [None]]:
            yield put({name: sent})
        yield put({"$deleteFromPrimitiveList/" + name: items[:1]})
        yield put({"$deleteFromPrimitiveList/" + name: ["nope"]})
        yield put({"$deleteFromPrimitiveList/" + name: "x"})
        yield put({"$deleteFromPrimitiveList/" + name: items[:1], name: items[:1]})
        yield put({"$deleteFromPrimitiveList/" + name: items, name: ["a.io/new"], "$setElementOrder/" + name: ["a.io/new"]})
        yield put({"$setElementOrder/" + name: items[::-1]})
        yield put({"$setElementOrder/" + name: ["a.io/new"] + items[::-1], name: ["a.io/new"]})
        yield put({"$setElementOrder/" + name: items, name: ["a.io/new"]})
        yield put({"$setElementOrder/" + name: "x"})
        return
    ids = [{key: item[key]} for item in items]
    fresh = dict(items[0], **{key: FRESH[key]})
    if key not in ("name", "key", "type") and "name" in fresh and key != "mountPath":
        fresh["name"] = "new"
    bare = {key: FRESH[key]}
    gone = [dict(one, **{"$patch": "delete"}) for one in ids]
    for sent in [
        [fresh], [bare], [fresh, items[0]], [items[0], fresh], items, items[::-1], ids, ids[::-1], [], None, {}, "x", [None], ["x"], [{}], [{"nope": 1}], [{key: None}], [1],
        gone[:1], gone[-1:], gone, gone + [fresh], [fresh] + gone[:1], gone[:1] + ids[1:], [dict(bare, **{"$patch": "delete"})], [{"$patch": "delete"}], [{"$patch": "replace"}],
        [{"$patch": "replace"}, fresh], [fresh, {"$patch": "replace"}], [dict(ids[0], **{"$patch": "replace"})], [dict(ids[0], **{"$patch": "replace"}), fresh], [dict(fresh, **{"$patch": "replace"})],
        [dict(ids[0], **{"$patch": "merge"})], [{"$patch": "merge"}], [dict(ids[0], **{"$patch": "odd"})], [{"$patch": "odd"}], [dict(ids[0], **{"$patch": 1})], [fresh, fresh], [ids[0], ids[0]],
        [dict(ids[0], nope=None)], [dict(ids[0], nope=1)], [dict(ids[0], **{"$retainKeys": [key]})], [dict(ids[0], **{"$retainKeys": list(items[0])})],
    ]:
        yield put({name: sent})
    order = "$setElementOrder/" + name
    for said, sent in [(ids[::-1], []), (ids[::-1], ids), (ids, [fresh]), ([bare] + ids, [fresh]), (ids + [bare], [fresh]), (ids[:1] + [bare] + ids[1:], [fresh]), (ids[1:] + ids[:1], gone[:1]),
                       (ids[:1], []), (ids[-1:], ids[-1:]), ([bare], [fresh]), ([], []), ([], [fresh]), ([bare, bare], [fresh]), ([{}], [fresh]), ([1], [fresh]), ("x", [fresh]), (None, [fresh]),
                       (ids[1:], gone[:1]), (ids[1:] + [bare], gone[:1] + [fresh]), (ids[::-1], ids[:1])]:
        yield put({order: said, name: sent})
        yield put({name: sent, order: said})
    yield put({order: ids[::-1]})
    yield put({order: [bare] + ids[::-1]})
    for keep in [[name], [], ["nope"], "x", None, [1]]:
        yield put({"$retainKeys": keep, name: ids[:1]})
        yield put({"$retainKeys": keep})


def strategic_patches(path, base):
    if path in (MAP, ACCOUNT):
        yield from merge_patches(path, base)
    for at, key in LISTS[path]:
        items = next(value for other, value in pointers(base) if other == at)
        yield from list_patches(at, key, items, lambda members: owner_of(at, members))
    if path == DEPLOYMENT:
        container = base["spec"]["template"]["spec"]["containers"][0]
        for name, key in INNER:
            yield from list_patches("/" + name, key, container[name], lambda members: nested(TEMPLATE, {"containers": [dict(members, name="c")]}))
    for at, value in pointers(base):
        if at in ("/apiVersion", "/kind") or not isinstance(value, dict) or any(part.isdigit() for part in at.split("/")):
            continue
        for directive in ["replace", "delete", "merge", "odd", None, 1]:
            yield nested(at, {"$patch": directive})
            first = dict(list(value.items())[:1])
            if len(json.dumps(first)) < 100:
                yield nested(at, dict({"$patch": directive}, **first))
        for keep in [list(value)[:1], list(value), [], ["nope"]]:
            yield nested(at, {"$retainKeys": keep})
            first = dict(list(value.items())[:1])
            if len(json.dumps(first)) < 100:
                yield nested(at, dict({"$retainKeys": keep}, **first))
    if path == DEPLOYMENT:
        for strategy in [{"type": "Recreate"}, {"type": "Recreate", "rollingUpdate": None}, {"$retainKeys": ["type"], "type": "Recreate"}, {"$retainKeys": ["type"], "type": "Recreate", "rollingUpdate": {"maxSurge": 2}},
                         {"$patch": "replace", "type": "Recreate"}, {"$retainKeys": ["type", "rollingUpdate"], "rollingUpdate": {"maxSurge": 2}}, {"rollingUpdate": {"maxSurge": None}}]:
            yield {"spec": {"strategy": strategy}}
        for volume in [{"name": "v", "hostPath": {"path": "/x"}}, {"$retainKeys": ["name", "hostPath"], "name": "v", "hostPath": {"path": "/x"}}, {"name": "v", "emptyDir": None, "hostPath": {"path": "/x"}},
                       {"$retainKeys": ["hostPath"], "name": "v", "hostPath": {"path": "/x"}}, {"$retainKeys": ["name"], "name": "v", "hostPath": {"path": "/x"}}]:
            yield nested(TEMPLATE, {"volumes": [volume]})


def drawn(path, base, dice):
    """A strategic merge patch by the dice, mostly a sensible one."""
    at, key = dice.choice([row for row in LISTS[path] if row[1]])
    items = next(value for other, value in pointers(base) if other == at)
    name, pool = at.rsplit("/", 1)[1], copy.deepcopy(items)
    for index in range(3):
        fresh = dict(pool[0], **{key: f"new{index}" if isinstance(pool[0][key], str) else 90 + index})
        if "name" in fresh and key != "name":
            fresh["name"] = f"new{index}"
        pool.append(fresh)
    dice.shuffle(pool)
    sent = []
    for item in pool[:dice.randint(0, 4)]:
        if dice.random() < 0.3:
            sent.append({key: item[key], "$patch": "delete"})
        elif dice.random() < 0.1:
            sent.append({"$patch": "replace"})
        else:
            sent.append(item)
    members = {name: sent}
    if dice.random() < 0.6:
        order = [{key: item[key]} for item in sent if key in item and item.get("$patch") != "delete"]
        order += [{key: item[key]} for item in items if {key: item[key]} not in order and dice.random() < 0.7]
        dice.shuffle(order)
        members["$setElementOrder/" + name] = order
    return owner_of(at, members)


def unlike(rows):
    """Each row once."""
    seen = []
    known = set()
    for row in rows:
        text = json.dumps(row, sort_keys=True)
        if text not in known:
            known.add(text)
            seen.append(row)
    return seen


def put(server, path, base):
    code, answer = server.ask("POST", path, base)
    assert code == 201, (path, answer)
    code, answer = server.ask("GET", path + "/" + base["metadata"]["name"])
    return cleaned(answer)


def ask(server):
    setup(server)
    code, answer = server.ask("POST", DEFINITIONS, DEFINITION)
    assert code == 201, answer
    while server.ask("GET", THING)[0] != 200:
        time.sleep(0.2)
    for path, base in BASES.items():
        stored = put(server, path, base)
        name, dice, rows = base["metadata"]["name"], random.Random(5), []
        kinds = {"json-patch": json_patches(path, base), "merge-patch": merge_patches(path, base), "strategic-merge-patch": strategic_patches(path, base)}
        if path == THING:
            kinds["strategic-merge-patch"] = [{}, {"spec": {"n": 6}}]
        for kind, patches in kinds.items():
            patches = list(patches)
            if kind == "strategic-merge-patch" and path in (DEPLOYMENT, SERVICE, NODE, ACCOUNT):
                patches += [drawn(path, base, dice) for _ in range(60)]
            for patch in unlike(patches):
                sub = "/status" if isinstance(patch, dict) and "status" in patch and path != THING else ""
                try:
                    code, answer = server.ask("PATCH", f"{path}/{name}{sub}?dryRun=All", patch, f"application/{kind}+json")
                except http.client.HTTPException:
                    continue  # Upstream's handler died of it, which is no answer to agree with.
                row = {"patch": patch, "answer": brief(code, answer, stored)}
                if sub:
                    row["sub"] = "status"
                rows.append(dict(row, kind=kind))
        server.ask("DELETE", f"{path}/{name}?gracePeriodSeconds=0")
        server.ask("PATCH", f"{path}/{name}", {"metadata": {"finalizers": None}}, "application/merge-patch+json")
        made = {"path": path, "base": base, "stored": stored, "cases": rows}
        yield dict(made, definition=DEFINITION) if path == THING else made
    server.ask("DELETE", DEFINITIONS + "/things.a.io")
