"""Selectors and options: what lists show by them, and what is said of those that cannot be."""
import itertools, json
from urllib.parse import quote

from server import brief, cleaned, refused

SPACE = "/api/v1/namespaces/options"
MAPS, PODS, NODES = SPACE + "/configmaps", SPACE + "/pods", "/api/v1/nodes"


def pod(name, labels, node=None, restart="Always", **metadata):
    spec = {"containers": [{"name": "c", "image": "i"}], "restartPolicy": restart, "automountServiceAccountToken": False}
    if node:
        spec["nodeName"] = node
    return PODS, {"metadata": dict({"name": name, "labels": labels}, **metadata), "spec": spec}


SETUP = [
    ("/api/v1/namespaces", {"metadata": {"name": "options"}}),
    (SPACE + "/serviceaccounts", {"metadata": {"name": "default"}, "automountServiceAccountToken": False}),
    (MAPS, {"metadata": {"name": "a", "labels": {"app": "x", "tier": "1", "empty": ""}}}),
    (MAPS, {"metadata": {"name": "b", "labels": {"app": "y", "tier": "2"}}}),
    (MAPS, {"metadata": {"name": "c", "labels": {"app": "x", "tier": "10", "a.io/b": "c"}}}),
    (MAPS, {"metadata": {"name": "d"}}),
    (MAPS, {"metadata": {"name": "e", "labels": {"app": "z", "tier": "x"}, "finalizers": ["a.io/b"], "ownerReferences": [{"apiVersion": "v1", "kind": "Pod", "name": "p", "uid": "u"}]}}),
    pod("p", {"app": "x"}, "n1"), pod("q", {"app": "y"}, "n2", "Never"), pod("r", {}, None, "OnFailure"),
    (NODES, {"metadata": {"name": "n1", "labels": {"a": "b"}}, "spec": {"unschedulable": True}}), (NODES, {"metadata": {"name": "n2"}}),
    (SPACE + "/secrets", {"metadata": {"name": "a"}, "type": "a.io/b"}), (SPACE + "/secrets", {"metadata": {"name": "b"}}),
    (SPACE + "/events", {"metadata": {"name": "e", "namespace": "options"}, "reason": "R", "type": "Warning", "source": {"component": "c"}, "reportingComponent": "x",
        "involvedObject": {"kind": "Pod", "name": "p", "namespace": "options", "uid": "u", "apiVersion": "v1", "fieldPath": "f"}}),
    (SPACE + "/services", {"metadata": {"name": "s"}, "spec": {"clusterIP": "None", "ports": [{"port": 80}]}}),
    ("/apis/batch/v1/namespaces/options/jobs", {"metadata": {"name": "j"}, "spec": {"template": {"spec": {"restartPolicy": "Never", "containers": [{"name": "c", "image": "i"}]}}}}),
    ("/apis/apps/v1/namespaces/options/replicasets", {"metadata": {"name": "r"}, "spec": {"replicas": 0, "selector": {"matchLabels": {"a": "b"}},
        "template": {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}}}}),
]

LABELS = [
    "app=x", "app==x", "app!=x", "app in (x)", "app in (x,y)", "app in (x, y)", "app in ( x , y )", "app notin (x)", "app notin (x,y)", "app", "!app", "! app", "app,tier", "app,!tier", "app=x,tier=1", "app=x,tier!=1",
    "app=", "empty=", "empty==", "empty!=", "empty", "empty in ()", "app in ()", "app in (,)", "app in (x,)", "empty in (,)", "app notin ()", "tier>1", "tier>5", "tier<5", "tier > 1", "tier<x", "tier>", ">1", "tier>1.5", "tier>-1", "tier>1,tier<20", "a.io/b", "a.io/b=c", "a.io/b!=c",
    "", ",", "=", "==", "!=", "!", "app=x,", ",app=x", "app=x,,tier=1", "app in x", "app in (x", "app in x)", "app (x)", "app notin", "app in", "in in (in)", "notin", "in", "app = x", "app=x y", "app=(x)", "app~x", "app=Bad Value!", "Bad Key!=x", "a/b/c=x", "/a=x", "a/=x", "-a=x", "a=-b", "a=" + "x" * 63,
    "a=" + "x" * 64, "a" * 64 + "=x", "app===x", "app=!x", "app!x", "app x", "app in (x) tier", "app in (x),tier", "app=x;tier=1", "app==x,app!=x", "app in (x),app notin (x)", "app=\"x\"", "app='x'", "A=x", "app=X", "1=1", "app.kubernetes.io/name=x", "app IN (x)",
]
FIELDS = {
    MAPS: ["metadata.name=a", "metadata.name==a", "metadata.name!=a", "metadata.namespace=options", "metadata.namespace=other", "metadata.namespace!=options", "metadata.name=a,metadata.namespace=options", "metadata.name=a,metadata.name=b", "metadata.name=", "metadata.name!=", "metadata.uid=x",
        "nope=x", "", ",", "=", "metadata.name", "metadata.name=a,", "metadata.name in (a)", "metadata.name~a", "metadata.name=a\\,b", "metadata.name=a\\", "metadata.name=a\\x", "metadata.name=a=b", "!metadata.name", "data.k=v", "metadata.name= a", " metadata.name=a", "metadata.labels.app=x", "metadata.name=Bad Value!"],
    PODS: ["spec.nodeName=n1", "spec.nodeName!=n1", "spec.nodeName=", "status.phase=Pending", "status.phase!=Pending", "status.phase=Running", "spec.restartPolicy=Never", "spec.restartPolicy!=Never", "spec.schedulerName=default-scheduler", "spec.serviceAccountName=default", "status.podIP=", "status.podIP!=", "status.nominatedNodeName=", "spec.nodeName=n1,status.phase=Pending", "metadata.name=p", "spec.hostname=", "spec.containers=x", "status=x", "spec.nodename=n1"],
    NODES: ["spec.unschedulable=true", "spec.unschedulable=false", "spec.unschedulable!=true", "spec.unschedulable=True", "metadata.name=n1", "status.phase=x"],
    SPACE + "/secrets": ["type=a.io/b", "type=Opaque", "type!=Opaque", "metadata.name=a", "data=x"],
    SPACE + "/events": ["involvedObject.name=p", "involvedObject.kind=Pod", "involvedObject.namespace=options", "involvedObject.uid=u", "involvedObject.apiVersion=v1", "involvedObject.fieldPath=f", "involvedObject.resourceVersion=", "reason=R", "reason!=R", "type=Warning", "source=c", "reportingComponent=x", "involvedObject.nope=x"],
    SPACE + "/services": ["spec.clusterIP=None", "spec.type=ClusterIP", "metadata.name=s"],
    "/api/v1/namespaces": ["status.phase=Active", "status.phase=Terminating", "metadata.name=options", "name=options"],
    "/apis/batch/v1/namespaces/options/jobs": ["status.successful=0", "status.successful!=0", "status.successful=", "metadata.name=j", "status.active=0"],
    "/apis/apps/v1/namespaces/options/replicasets": ["status.replicas=0", "status.replicas!=0", "status.replicas=1", "metadata.name=r", "spec.replicas=0"],
    SPACE + "/replicationcontrollers": ["status.replicas=0", "spec.replicas=0"],
    "/apis/apps/v1/namespaces/options/deployments": ["metadata.name=r", "status.replicas=0", "spec.replicas=1"],
}
LISTS = [
    "limit=1", "limit=2", "limit=0", "limit=-1", "limit=x", "limit=", "limit=1.5", "limit=99999999999999999999", "continue=x", "continue=", "limit=1&continue=x", "continue=e30", "continue=eyJ2IjoibWV0YS5rOHMuaW8vdjEifQ",
    "resourceVersion=x", "resourceVersion=-1", "resourceVersion=0", "resourceVersion=", "resourceVersion=1.5", "resourceVersion=99999999999999999999", "resourceVersionMatch=Exact", "resourceVersionMatch=NotOlderThan", "resourceVersionMatch=Odd",
    "resourceVersion=0&resourceVersionMatch=Exact", "resourceVersion=0&resourceVersionMatch=NotOlderThan", "resourceVersion=0&resourceVersionMatch=Odd", "resourceVersion=x&resourceVersionMatch=Exact", "resourceVersion=1&continue=x", "resourceVersion=0&continue=x", "resourceVersion=1&resourceVersionMatch=Exact&continue=x",
    "resourceVersionMatch=", "timeoutSeconds=x", "timeoutSeconds=5", "timeoutSeconds=-1", "watch=x&timeoutSeconds=y", "watch=1&resourceVersion=x", "watch=1&resourceVersionMatch=Exact&resourceVersion=1", "watch=1&labelSelector=Bad%20Value!", "watch=1&fieldSelector=nope%3Dx", "allowWatchBookmarks=x", "nope=x", "labelSelector=app&labelSelector=!app", "fieldSelector=metadata.name%3Da&labelSelector=app",
    "watch=false", "pretty=true", "labelSelector=%zz", "limit=1&labelSelector=app%3Dx", "limit=1&fieldSelector=metadata.name%3Db",
]
WRITES = ["", "dryRun=All", "dryRun=", "dryRun=x", "dryRun=all", "dryRun=All&dryRun=All", "dryRun=All&dryRun=x", "dryRun=All&fieldManager=m", "dryRun=All&fieldManager=", "dryRun=All&fieldManager=" + "x" * 128, "dryRun=All&fieldManager=" + "x" * 129, "dryRun=All&fieldManager=a%0Ab",
    "dryRun=All&fieldManager=%C3%A4", "dryRun=All&pretty=true", "dryRun=All&nope=x", "dryRun=All&force=true", "dryRun=All&force=false", "dryRun=All&force=x", "dryRun=All&resourceVersion=1", "dryRun=All&timeout=5s", "dryRun=All&timeout=x", "dryRun=All&timeout=-1s", "dryRun=All&timeout=0"]
DELETES = [
    None, {}, {"gracePeriodSeconds": 0}, {"gracePeriodSeconds": 5}, {"gracePeriodSeconds": -1}, {"gracePeriodSeconds": "x"}, {"gracePeriodSeconds": 1.5}, {"gracePeriodSeconds": None}, {"propagationPolicy": "Orphan"}, {"propagationPolicy": "Background"}, {"propagationPolicy": "Foreground"}, {"propagationPolicy": "Odd"}, {"propagationPolicy": ""}, {"orphanDependents": True}, {"orphanDependents": False},
    {"orphanDependents": True, "propagationPolicy": "Orphan"}, {"orphanDependents": "x"}, {"preconditions": {}}, {"preconditions": None}, {"preconditions": {"uid": "x"}}, {"preconditions": {"uid": ""}}, {"preconditions": {"resourceVersion": "1"}}, {"preconditions": {"resourceVersion": ""}}, {"preconditions": {"uid": "x", "resourceVersion": "1"}}, {"preconditions": {"nope": 1}}, {"dryRun": ["All"]}, {"dryRun": ["x"]}, {"dryRun": "All"}, {"dryRun": ["All", "All"]},
    {"kind": "DeleteOptions", "apiVersion": "v1"}, {"kind": "DeleteOptions", "apiVersion": "meta.k8s.io/v1"}, {"kind": "Odd", "apiVersion": "v1"}, {"kind": "Pod", "apiVersion": "v1"}, {"kind": "DeleteOptions"}, {"kind": "DeleteOptions", "apiVersion": "apps/v1"}, {"kind": "DeleteOptions", "apiVersion": "v9"}, {"nope": 1}, [], "x", "{",
]
DELETE_QUERIES = ["gracePeriodSeconds=0", "gracePeriodSeconds=x", "gracePeriodSeconds=-1", "gracePeriodSeconds=", "propagationPolicy=Orphan", "propagationPolicy=Foreground", "propagationPolicy=Background", "propagationPolicy=Odd", "propagationPolicy=", "orphanDependents=true", "orphanDependents=false", "orphanDependents=x", "orphanDependents=true&propagationPolicy=Orphan", "dryRun=x", "nope=x", "preconditions=x"]


def listed(code, answer):
    if code >= 300:
        return refused(code, answer)
    items = answer.get("items")
    if items is None:
        return {"code": code}
    made = {"code": code, "names": [item["metadata"]["name"] for item in items]}
    meta = answer["metadata"]
    return dict(made, more=meta.get("remainingItemCount", "?")) if meta.get("continue") else made


def lists():
    """Addresses of lists."""
    for selector in LABELS:
        yield f"{MAPS}?labelSelector={quote(selector)}"
    for path, selectors in FIELDS.items():
        for selector in selectors:
            yield f"{path}?fieldSelector={quote(selector)}"
    for query in LISTS:
        yield f"{MAPS}?{query}"
    for query in ["resourceVersion=x", "resourceVersion=0", "resourceVersion=", "nope=x"]:
        yield f"{MAPS}/a?{query}"
    yield f"{MAPS}/nope"
    yield "/api/v1/namespaces/nope/configmaps"
    yield "/api/v1/namespaces/nope/configmaps/x"
    yield "/api/v1/nope"
    yield "/apis/nope/v1/x"
    yield "/apis/apps/v9/deployments"


def dry(body):
    """Where there is a body, upstream reads nothing from the query of a delete."""
    return dict({"dryRun": ["All"]}, **body) if isinstance(body, dict) else body


def writes():
    """Method, address, body, kind of body."""
    map_ = {"metadata": {"name": "a"}, "data": {"k": "v"}}
    fresh = {"metadata": {"name": "new"}, "data": {"k": "v"}}
    for query in WRITES[1:]:
        yield "POST", f"{MAPS}?{query}", fresh, "application/json"
        yield "PUT", f"{MAPS}/a?{query}", map_, "application/json"
        yield "PATCH", f"{MAPS}/a?{query}", map_, "application/merge-patch+json"
    run = "dryRun=All"
    for body in [dict(fresh, kind="ConfigMap"), dict(fresh, apiVersion="v1"), dict(fresh, kind="Pod", apiVersion="v1"), dict(fresh, kind="ConfigMap", apiVersion="v9"), dict(fresh, kind="ConfigMap", apiVersion="apps/v1"), [], "x", "{", "", "null", 1, {}, {"metadata": {}}, {"metadata": {"name": 5}},
                 {"metadata": {"name": "a", "namespace": "other"}}, {"metadata": {"name": "a"}}, {"metadata": {"generateName": "x-"}, "data": 5}, {"metadata": {"name": "x", "resourceVersion": "5"}}, {"metadata": {"name": "x", "uid": "u"}}, {"metadata": {"name": "x"}, "data": {"k": 5}}, {"metadata": {"name": "x"}, "data": {"k": None}}, {"metadata": {"name": "x"}, "data": ["k"]},
                 {"metadata": {"name": "x", "deletionTimestamp": "2020-01-01T00:00:00Z", "deletionGracePeriodSeconds": 5, "generation": 7, "selfLink": "/x"}}, {"metadata": {"name": "x", "creationTimestamp": 5}}, {"metadata": {"name": "x"}, "DATA": {"k": "v"}}, {"metadata": {"name": "x"}, "data": None}, {"metadata": None}]:
        yield "POST", f"{MAPS}?{run}", body, "application/json"
        yield "PUT", f"{MAPS}/a?{run}", body, "application/json"
    for kind in ["application/yaml", "text/plain", "application/json; charset=utf-8", "application/x", "*/*", "application/merge-patch+json"]:
        yield "POST", f"{MAPS}?{run}", fresh, kind
        yield "PATCH", f"{MAPS}/a?{run}", fresh, kind
        yield "DELETE", f"{MAPS}/a?{run}", dry({}), kind
    yield "PUT", f"{MAPS}/nope?{run}", {"metadata": {"name": "nope"}}, "application/json"
    yield "PUT", f"{MAPS}/nope?{run}", {"metadata": {"name": "nope", "resourceVersion": "5"}}, "application/json"
    yield "PUT", f"{MAPS}/nope?{run}", {"metadata": {"name": "nope", "uid": "u"}}, "application/json"
    yield "PATCH", f"{MAPS}/nope?{run}", {"metadata": {"name": "nope"}}, "application/merge-patch+json"
    yield "PUT", f"{MAPS}?{run}", map_, "application/json"
    yield "POST", f"{MAPS}/a?{run}", map_, "application/json"
    yield "PATCH", f"{MAPS}?{run}", map_, "application/merge-patch+json"
    yield "POST", f"/api/v1/namespaces/nope/configmaps?{run}", fresh, "application/json"
    yield "POST", f"/api/v1/configmaps?{run}", fresh, "application/json"
    yield "PUT", f"{MAPS}/a/status?{run}", map_, "application/json"
    for version in ["1", "0", "x", "-1", ""]:
        yield "PUT", f"{MAPS}/a?{run}", {"metadata": {"name": "a", "resourceVersion": version}}, "application/json"
    lease = "/apis/coordination.k8s.io/v1/namespaces/options/leases"
    yield "PUT", f"{lease}/new?{run}", {"metadata": {"name": "new"}, "spec": {}}, "application/json"
    yield "PUT", f"{SPACE}/events/new?{run}", {"metadata": {"name": "new"}, "involvedObject": {"namespace": "options"}}, "application/json"
    yield "PUT", f"{SPACE}/endpoints/new?{run}", {"metadata": {"name": "new"}}, "application/json"
    yield "PUT", f"/apis/rbac.authorization.k8s.io/v1/namespaces/options/roles/new?{run}", {"metadata": {"name": "new"}, "rules": []}, "application/json"
    yield "PUT", f"{SPACE}/serviceaccounts/new?{run}", {"metadata": {"name": "new"}}, "application/json"
    for scale in [{"metadata": {"name": "r"}, "spec": {"replicas": 2}}, {"metadata": {"name": "r"}, "spec": {"replicas": -1}}, {"metadata": {"name": "r"}, "spec": {}}, {"metadata": {"name": "other"}, "spec": {"replicas": 2}}, {"metadata": {"name": "r", "resourceVersion": "1"}, "spec": {"replicas": 2}}, {"metadata": {"name": "r", "uid": "u"}, "spec": {"replicas": 2}}, {"kind": "Scale", "apiVersion": "autoscaling/v1", "metadata": {"name": "r", "namespace": "options"}, "spec": {"replicas": 3}}, {"kind": "Odd", "apiVersion": "autoscaling/v1", "metadata": {"name": "r"}}]:
        yield "PUT", f"/apis/apps/v1/namespaces/options/replicasets/r/scale?{run}", scale, "application/json"
        yield "PATCH", f"/apis/apps/v1/namespaces/options/replicasets/r/scale?{run}", scale, "application/merge-patch+json"
    for name in ["a", "e", "nope"]:
        for body in DELETES:
            yield "DELETE", f"{MAPS}/{name}?{run}", dry(body), "application/json"
        for query in DELETE_QUERIES:
            yield "DELETE", f"{MAPS}/{name}?{run}&{query}", None, "application/json"
    for path in [PODS + "/p", PODS + "/r", "/apis/batch/v1/namespaces/options/jobs/j", "/apis/apps/v1/namespaces/options/replicasets/r", SPACE + "/services/s", NODES + "/n1", SPACE]:
        for body in DELETES[:26]:
            yield "DELETE", f"{path}?{run}", dry(body), "application/json"
    for body in [None, {"propagationPolicy": "Odd"}, {"gracePeriodSeconds": -1}, {"preconditions": {"uid": "x"}}]:
        for query in ["labelSelector=app%3Dx", "fieldSelector=metadata.name%3Dnope", "labelSelector=Bad%20Value!", "fieldSelector=nope%3Dx"]:
            yield "DELETE", f"{MAPS}?{run}&{query}", dry(body), "application/json"
    for binding in [{"metadata": {"name": "r"}, "target": {"name": "n1"}}, {"metadata": {"name": "r"}, "target": {}}, {"metadata": {"name": "r"}, "target": {"kind": "Pod", "name": "x"}}, {"metadata": {"name": "p"}, "target": {"name": "n1"}}]:
        yield "POST", f"{PODS}/{binding['metadata']['name']}/binding?{run}", binding, "application/json"


def known(server, path):
    """The object that an address names, as it stands."""
    code, answer = server.ask("GET", path.split("?")[0])
    return cleaned(answer) if code == 200 and "items" not in answer else {}


def ask(server):
    for path, body in SETUP:
        code, answer = server.ask("POST", path, body)
        assert code == 201, (path, answer)
    rows = []
    for path in lists():
        code, answer = server.ask("GET", path)
        rows.append({"method": "GET", "path": path, "answer": listed(code, answer)})
    seen = set()
    for method, path, body, kind in writes():
        key = json.dumps([method, path, body, kind])
        if key in seen:
            continue
        seen.add(key)
        code, answer = server.ask(method, path, body, kind)
        row = {"method": method, "path": path, "answer": brief(code, answer, known(server, path)) if "items" not in answer else listed(code, answer)}
        if body is not None:
            row["body"] = body
        if kind != "application/json":
            row["kind"] = kind
        rows.append(row)
    yield {"setup": SETUP, "cases": rows}
