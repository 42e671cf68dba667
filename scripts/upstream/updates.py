"""Updates of every field: left out, changed, added to. Each is a dry run of one change to an object that stands."""
import copy, time

from bases import BASES, MORE
from server import brief, cleaned

# Where a text has other values than any.
OTHER = {
    "restartPolicy": "Never", "imagePullPolicy": "Never", "terminationMessagePolicy": "FallbackToLogsOnError", "dnsPolicy": "Default",
    "protocol": "UDP", "effect": "NoSchedule", "operator": "Equal", "whenUnsatisfiable": "ScheduleAnyway", "sessionAffinity": "None",
    "externalTrafficPolicy": "Local", "clusterIP": "10.96.0.78", "podManagementPolicy": "OrderedReady", "pathType": "Exact",
    "reclaimPolicy": "Delete", "persistentVolumeReclaimPolicy": "Delete", "volumeBindingMode": "WaitForFirstConsumer",
    "volumeMode": "Filesystem", "preemptionPolicy": "PreemptLowerPriority", "sideEffects": "NoneOnDryRun", "matchPolicy": "Exact",
    "scope": "Cluster", "reinvocationPolicy": "IfNeeded", "cpu": "3", "storage": "2Gi", "pods": "2", "memory": "3",
    "podCIDR": "10.2.0.0/24", "cidr": "11.0.0.0/8", "ip": "10.0.0.9", "tls.crt": "eQ==", "tls.key": "eQ==", "scheme": "HTTPS",
    "fieldPath": "metadata.namespace", "targetPort": 82, "maxSurge": "20%", "maxUnavailable": 2, "eventTime": "2021-01-01T00:00:00.000000Z",
    "firstTimestamp": "2021-01-01T00:00:00Z", "lastTimestamp": "2021-01-01T00:00:00Z", "request": "eA==", "address": "10.0.0.9",
}
# Where it depends on the kind.
OTHERS = {
    ("deployments", "type"): ["Recreate"], ("statefulsets", "type"): ["OnDelete"], ("daemonsets", "type"): ["OnDelete"],
    ("services", "type"): ["ClusterIP", "NodePort", "ExternalName"], ("secrets", "type"): ["Opaque"], ("limitranges", "type"): ["Pod"],
    ("pods", "type"): ["File"], ("nodes", "type"): ["ExternalIP"], ("events", "type"): ["Warning"], ("networkpolicies", "policyTypes"): [["Egress"]],
}
POD = [
    ("activeDeadlineSeconds", 5), ("hostNetwork", True), ("hostPID", True), ("hostname", "h"), ("subdomain", "s"), ("nodeName", "n"),
    ("priorityClassName", "system-node-critical"), ("priority", 5), ("serviceAccountName", "other"), ("automountServiceAccountToken", True),
    ("initContainers", [{"name": "i", "image": "i"}]), ("imagePullSecrets", [{"name": "s"}]), ("hostAliases", [{"ip": "1.2.3.4", "hostnames": ["a"]}]),
    ("dnsConfig", {"nameservers": ["1.2.3.4"]}), ("readinessGates", [{"conditionType": "a.io/b"}]), ("runtimeClassName", "r"),
    ("enableServiceLinks", False), ("shareProcessNamespace", True), ("setHostnameAsFQDN", True), ("preemptionPolicy", "Never"),
    ("ephemeralContainers", [{"name": "e", "image": "i"}]), ("overhead", {"cpu": "1"}), ("unknown", 1),
]
# Fields that the good objects leave out.
ADDED = {
    "pods": [(["spec", key], value) for key, value in POD]
        + [(["spec", "containers", 0, key], value) for key, value in [
            ("command", ["x"]), ("args", ["x"]), ("workingDir", "/x"), ("stdin", True), ("tty", True), ("envFrom", [{"configMapRef": {"name": "m"}}]),
            ("startupProbe", {"exec": {"command": ["x"]}}), ("volumeDevices", [{"name": "c", "devicePath": "/d"}])]]
        + [(["status"], {"phase": "Running", "podIP": "1.2.3.4"})],
    "deployments": [(["spec", "paused"], True), (["status"], {"replicas": 5})] + [(["spec", "template", "spec", key], value) for key, value in POD],
    "statefulsets": [(["spec", "volumeClaimTemplates"], [{"metadata": {"name": "c"}, "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}}])],
    "replicasets": [(["spec", "template", "spec", "restartPolicy"], "OnFailure"), (["status"], {"replicas": 5})],
    "jobs": [(["spec", "manualSelector"], True), (["spec", "selector", "matchLabels", "z"], "z"), (["spec", "template", "metadata", "labels", "z"], "z"), (["status"], {"active": 1})],
    "services": [(["spec", "clusterIP"], "None"), (["spec", "clusterIP"], ""), (["spec", "externalName"], "a.b"), (["spec", "healthCheckNodePort"], 30123),
        (["spec", "loadBalancerIP"], "1.2.3.4"), (["spec", "loadBalancerSourceRanges"], ["10.0.0.0/8"]), (["spec", "loadBalancerSourceRanges"], ["x"]),
        (["spec", "publishNotReadyAddresses"], True), (["spec", "ports", 0, "appProtocol"], "http"), (["spec", "ports", 1, "nodePort"], 30080),
        (["spec", "ports", 1, "nodePort"], 1), (["status"], {"loadBalancer": {"ingress": [{"ip": "1.2.3.4"}]}})],
    "configmaps": [(["immutable"], True), (["binaryData"], {"b": "eA=="}), (["binaryData"], {"k": "eA=="}), (["binaryData"], {"b": "?"})],
    "secrets": [(["immutable"], True), (["stringData"], {"a": "b"}), (["stringData"], {"tls.crt": "b"})],
    "persistentvolumeclaims": [(["spec", "volumeName"], "v"), (["spec", "selector"], {"matchLabels": {"a": "b"}}), (["spec", "dataSource"], {"kind": "PersistentVolumeClaim", "name": "x"}),
        (["spec", "resources", "limits"], {"storage": "3Gi"}), (["spec", "accessModes"], ["ReadOnlyMany"]), (["status"], {"phase": "Bound"})],
    "persistentvolumes": [(["spec", "claimRef"], {"name": "c", "namespace": "default"}), (["spec", "mountOptions"], ["ro"]), (["spec", "hostPath"], {"path": "/x"}),
        (["spec", "nodeAffinity"], {"required": {"nodeSelectorTerms": [{"matchExpressions": [{"key": "a", "operator": "Exists"}]}]}}), (["status"], {"phase": "Bound"})],
    "storageclasses": [(["parameters"], {"a": "b"}), (["allowVolumeExpansion"], True), (["mountOptions"], ["ro"]), (["allowedTopologies"], [{"matchLabelExpressions": [{"key": "a", "values": ["b"]}]}])],
    "ingresses": [(["spec", "defaultBackend"], {"service": {"name": "s", "port": {"name": "p"}}}), (["status"], {"loadBalancer": {"ingress": [{"ip": "1.2.3.4"}]}}),
        (["metadata", "annotations"], {"kubernetes.io/ingress.class": "c"})],
    "networkpolicies": [(["spec", "egress"], [{"to": [{"namespaceSelector": {}}]}]), (["spec", "egress"], [{"to": [{}]}])],
    "namespaces": [(["spec", "finalizers"], ["a.io/b"]), (["spec", "finalizers"], []), (["status"], {"phase": "Terminating"})],
    "nodes": [(["spec", "configSource"], {}), (["spec", "externalID"], "x"), (["spec", "taints"], [{"key": "k", "value": "v", "effect": "NoSchedule"}] * 2)],
    "horizontalpodautoscalers": [(["status"], {"currentReplicas": 1, "desiredReplicas": 1})],
    "roles": [(["rules", 0, "resourceNames"], ["a"]), (["rules", 0, "nonResourceURLs"], ["/a"])],
    "clusterroles": [(["aggregationRule"], {"clusterRoleSelectors": [{"matchLabels": {"a": "b"}}]})],
    "runtimeclasses": [(["overhead"], {"podFixed": {"cpu": "1"}}), (["scheduling"], {"nodeSelector": {"a": "b"}})],
    "resourcequotas": [(["spec", "scopes"], ["Terminating", "NotTerminating"]), (["spec", "scopeSelector"], {"matchExpressions": [{"scopeName": "PriorityClass", "operator": "Exists"}]}), (["status"], {"used": {"pods": "1"}})],
    "certificatesigningrequests": [(["spec", "username"], "x"), (["status"], {"conditions": [{"type": "Approved", "status": "True"}]})],
    "customresourcedefinitions": [(["spec", "preserveUnknownFields"], True), (["spec", "versions", 0, "subresources"], {"status": {}}), (["spec", "conversion"], {"strategy": "Webhook"}),
        (["spec", "versions", 0, "subresources"], {"scale": {"specReplicasPath": "x", "statusReplicasPath": ".status.r"}}), (["spec", "names", "categories"], ["all"])],
    "validatingwebhookconfigurations": [(["webhooks", 0, "objectSelector"], {"matchLabels": {"a": "b"}}), (["webhooks", 0, "clientConfig"], {"url": "http://a.b"})],
    "csidrivers": [(["spec", "storageCapacity"], True), (["spec", "fsGroupPolicy"], "File"), (["spec", "tokenRequests"], [{"audience": "a"}])],
    "endpoints": [(["subsets", 0, "notReadyAddresses"], [{"ip": "10.0.0.2"}]), (["subsets", 0, "addresses", 0, "nodeName"], "n")],
    "leases": [(["spec", "renewTime"], "2020-01-01T00:00:00.000000Z"), (["spec", "renewTime"], "x")],
}
# What may be said of any object; tried on some kinds.
META = [
    (["metadata", "uid"], "11111111-1111-1111-1111-111111111111"), (["metadata", "resourceVersion"], "1"), (["metadata", "resourceVersion"], "x"),
    (["metadata", "resourceVersion"], ""), (["metadata", "generation"], 77), (["metadata", "generation"], -1), (["metadata", "creationTimestamp"], "2020-01-01T00:00:00Z"),
    (["metadata", "creationTimestamp"], "x"), (["metadata", "deletionTimestamp"], "2020-01-01T00:00:00Z"), (["metadata", "deletionGracePeriodSeconds"], 5),
    (["metadata", "selfLink"], "/x"), (["metadata", "generateName"], "x"), (["metadata", "generateName"], "Bad Value!"),
    (["metadata", "labels"], {"a.io/b": "c"}), (["metadata", "labels"], {"Bad Key!": "c"}), (["metadata", "labels"], {"a": "Bad Value!"}), (["metadata", "labels"], {"a": 1}),
    (["metadata", "annotations"], {"a.io/b": "Any Value!"}), (["metadata", "annotations"], {"Bad Key!": "c"}), (["metadata", "annotations"], []),
    (["metadata", "finalizers"], ["a.io/b"]), (["metadata", "finalizers"], ["foregroundDeletion"]), (["metadata", "finalizers"], ["orphan", "foregroundDeletion"]), (["metadata", "finalizers"], ["b"]), (["metadata", "finalizers"], [""]),
    (["metadata", "ownerReferences"], [{"apiVersion": "v1", "kind": "Pod", "name": "p", "uid": "u"}]),
    (["metadata", "ownerReferences"], [{"apiVersion": "v1", "kind": "Pod", "name": "p"}]), (["metadata", "ownerReferences"], [{"apiVersion": "v1", "kind": "Event", "name": "p", "uid": "u"}]),
    (["metadata", "ownerReferences"], [{"apiVersion": "v1", "kind": "Pod", "name": "p", "uid": uid, "controller": True} for uid in "uv"]),
    (["metadata", "managedFields"], [{"manager": "m", "operation": "Odd", "apiVersion": "v1"}]), (["metadata", "unknown"], 1),
    (["kind"], "Odd"), (["apiVersion"], "v9"), (["unknown"], {"a": 1}), (["metadata", "name"], ""), (["metadata", "namespace"], "other"), (["metadata", "namespace"], ""), (["metadata"], {}),
]
WITH_META = ("pods", "configmaps", "deployments", "nodes", "roles", "customresourcedefinitions", "services")

# What a status is set to, valid and not.
STATUSES = {
    "pods": [{"phase": "Running", "podIP": "1.2.3.4", "conditions": [{"type": "Ready", "status": "True"}]}, {"phase": "Odd"},
        {"podIP": "1.2.3.4", "podIPs": [{"ip": "2.3.4.5"}]}, {"podIPs": [{"ip": "x"}]}, {"nominatedNodeName": "Bad Value!"},
        {"containerStatuses": [{"name": "c", "ready": True, "restartCount": 1, "image": "i", "imageID": "j", "state": {"running": {}}}]},
        {"containerStatuses": [{"name": "c", "ready": True, "restartCount": 1, "image": "i", "imageID": "j", "state": {"terminated": {"exitCode": 1}}}]}, {"qosClass": "Guaranteed"}],
    "services": [{"loadBalancer": {"ingress": [{"ip": "1.2.3.4"}, {"hostname": "a.b"}]}}, {"loadBalancer": {"ingress": [{"ip": "x"}]}},
        {"loadBalancer": {"ingress": [{"hostname": "1.2.3.4"}]}}, {"conditions": [{"type": "A", "status": "True", "reason": "R", "message": "", "lastTransitionTime": "2020-01-01T00:00:00Z"}]}],
    "deployments": [{"replicas": 2, "updatedReplicas": 1, "readyReplicas": 1, "availableReplicas": 1, "observedGeneration": 1}, {"replicas": -1}, {"replicas": 1, "readyReplicas": 2},
        {"replicas": 1, "availableReplicas": 2}, {"replicas": 1, "updatedReplicas": 2}, {"collisionCount": -1}, {"observedGeneration": -1}, {"replicas": 2, "readyReplicas": 1, "availableReplicas": 2}],
    "statefulsets": [{"replicas": 2, "readyReplicas": 1, "currentReplicas": 1, "currentRevision": "a"}, {"replicas": -1}, {"replicas": 1, "readyReplicas": 2}, {"replicas": 1, "currentReplicas": 2}, {"replicas": 1, "observedGeneration": -1}],
    "daemonsets": [{"currentNumberScheduled": 1, "numberMisscheduled": 0, "desiredNumberScheduled": 1, "numberReady": 1}, {"currentNumberScheduled": -1, "numberMisscheduled": -1, "desiredNumberScheduled": -1, "numberReady": -1}],
    "replicasets": [{"replicas": 2, "readyReplicas": 1}, {"replicas": -1}, {"replicas": 1, "fullyLabeledReplicas": 2}, {"replicas": 1, "readyReplicas": 2}, {"replicas": 1, "availableReplicas": 2}],
    "replicationcontrollers": [{"replicas": 2, "readyReplicas": 1}, {"replicas": -1}, {"replicas": 1, "readyReplicas": 2}],
    "jobs": [{"active": 1, "succeeded": 1, "failed": 0}, {"active": -1}, {"succeeded": -1, "failed": -1}],
    "horizontalpodautoscalers": [{"currentReplicas": 1, "desiredReplicas": 1}, {"currentReplicas": -1, "desiredReplicas": 1}, {"currentReplicas": 1, "desiredReplicas": -1}],
    "ingresses": [{"loadBalancer": {"ingress": [{"ip": "1.2.3.4"}]}}, {"loadBalancer": {"ingress": [{"ip": "x"}]}}],
    "persistentvolumeclaims": [{"phase": "Bound", "capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOnce"]}, {"capacity": {"storage": "-1"}}],
    "persistentvolumes": [{"phase": "Bound"}, {"phase": "Odd"}],
    "namespaces": [{"phase": "Terminating"}, {"phase": "Active", "conditions": [{"type": "A", "status": "True"}]}],
    "nodes": [{"phase": "Running", "addresses": [{"type": "InternalIP", "address": "1.2.3.4"}]}, {"addresses": [{"type": "InternalIP", "address": "1.2.3.4"}] * 2},
        {"capacity": {"cpu": "-1"}}, {"capacity": {"a.io/b": "1.5"}}],
    "resourcequotas": [{"hard": {"pods": "1"}, "used": {"pods": "1"}}, {"used": {"pods": "-1"}}, {"used": {"Bad Value!": "1"}}, {"used": {"pods": "1.5"}}],
    "certificatesigningrequests": [{"certificate": "eA=="}, {"conditions": [{"type": "Failed", "status": "True"}]}, {"conditions": [{"type": "Approved", "status": "True"}]}],
    "volumeattachments": [{"attached": True}, {"attached": False, "attachError": {"message": "m"}}],
}

QUANTITIES = ("requests", "limits", "capacity", "allocatable", "hard", "used", "max", "min", "default", "defaultRequest", "podFixed")


def places(value, at=()):
    if at:
        yield at, value
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, member in items:
        yield from places(member, at + (key,))


def tweaked(value):
    """Another one of the same shape, for a list that already has this one."""
    if isinstance(value, dict):
        first = next((key for key in ("name", "key", "port", "ip", "containerPort", "mountPath", "topologyKey", "type") if key in value), None)
        return {key: tweaked(member) if key == first else member for key, member in value.items()}
    if isinstance(value, bool):
        return not value
    return value + 1 if isinstance(value, int) else value + "z" if isinstance(value, str) else value


def others(plural, at, value):
    key = at[-1]
    if (plural, key) in OTHERS:
        return OTHERS[plural, key]
    if isinstance(value, bool):
        return [not value]
    if isinstance(value, (int, str)) and key in OTHER:
        return [OTHER[key]]
    if isinstance(value, int):
        return [value + 1]
    if isinstance(value, str):
        return [value + "x"]
    if isinstance(value, list):
        return [value + [tweaked(value[-1])]] + ([value[::-1]] if len(value) > 1 else []) + [[]] if value else []
    texts = value and all(isinstance(member, str) for member in value.values())
    grown = dict(value, **{"a.io/z": "1" if key in QUANTITIES else "z"} if "." not in key else {}) if texts and isinstance(key, str) else None
    return ([grown] if grown and grown != value else []) + ([{}] if value else [])


def cases(plural, stored):
    yield {"at": []}
    for at, value in places(stored):
        if at[0] == "status":
            continue
        yield {"at": at}
        for new in others(plural, at, value):
            yield {"at": at, "value": new}
    for at, value in ADDED.get(plural, []) + (META if plural in WITH_META else []):
        yield {"at": at, "value": value}
    if plural not in STATUSES:
        return
    for status in STATUSES[plural]:
        yield {"at": ["status"], "value": status, "sub": "status"}
    for at, value in [(["metadata", "labels"], {"z": "z"}), (["metadata", "annotations"], {"z": "z"}), (["metadata", "finalizers"], ["a.io/z"]), (["spec"], {}), (["metadata", "labels"], {"a": "Bad Value!"})]:
        yield {"at": at, "value": value, "sub": "status"}


def changed(stored, case):
    made = copy.deepcopy(stored)
    if not case["at"]:
        return made
    owner = made
    for key in case["at"][:-1]:
        owner = owner.setdefault(key, {}) if isinstance(owner, dict) else owner[key]
    if "value" in case:
        owner[case["at"][-1]] = copy.deepcopy(case["value"])
    else:
        del owner[case["at"][-1]]
    return made


def setup(server):
    """What objects of other kinds need."""
    server.ask("POST", "/api/v1/namespaces/default/serviceaccounts", {"metadata": {"name": "default"}, "automountServiceAccountToken": False})


BY_CONTROLLERS = ("customresourcedefinitions", "apiservices")
# Addresses, ports and labels are said, so that they are no matter of chance.
JOBS = "/apis/batch/v1/namespaces/default/jobs"
SERVICES = "/api/v1/namespaces/default/services"


def base_of(path):
    base = copy.deepcopy(dict(BASES, **MORE)[path])
    if path == JOBS:
        base["spec"].update(manualSelector=True, selector={"matchLabels": {"a": "b"}})
        base["spec"]["template"]["metadata"] = {"labels": {"a": "b"}}
    if path == SERVICES:
        base["spec"]["clusterIP"] = "10.96.0.77"
        for index, port in enumerate(base["spec"]["ports"]):
            port["nodePort"] = 30070 + index
    return base


def made(server, path):
    """Creates the good object of a kind. Returns it as it was sent, as it stands, and its version."""
    base = base_of(path)
    code, answer = server.ask("POST", path, base)
    assert code == 201, (path, answer)
    name = base["metadata"]["name"]
    if path.endswith(BY_CONTROLLERS):
        time.sleep(3)  # Until the server's own controllers have said what they have to say.
    code, answer = server.ask("GET", path + "/" + name)
    assert code == 200, (path, answer)
    version, stored = answer["metadata"]["resourceVersion"], cleaned(answer)
    if path.endswith(BY_CONTROLLERS):
        stored.pop("status", None)
    return base, stored, version


def ended(server, path, name):
    server.ask("DELETE", path + "/" + name + "?gracePeriodSeconds=0&propagationPolicy=Background")


def ask(server):
    setup(server)
    for path in [*BASES, *MORE]:
        plural = path.rsplit("/", 1)[1]
        base, stored, version = made(server, path)
        name = base["metadata"]["name"]
        rows = []
        for case in cases(plural, stored):
            sent = changed(stored, case)
            if isinstance(sent.get("metadata"), dict):
                sent["metadata"].setdefault("resourceVersion", version)
            sub = "/" + case["sub"] if "sub" in case else ""
            code, answer = server.ask("PUT", f"{path}/{name}{sub}?dryRun=All", sent)
            if path.endswith(BY_CONTROLLERS):
                answer.pop("status", None) if code < 300 else None
            case["answer"] = brief(code, answer, stored, sent)
            rows.append(case)
        ended(server, path, name)
        yield {"path": path, "base": base, "stored": stored, "cases": rows}
