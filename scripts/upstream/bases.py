"""Good objects: one of each kind that upstream 1.20 serves in a version that there still is."""

BASES = {
    "/api/v1/namespaces/default/pods": {"metadata": {"name": "p"}, "spec": {
        "restartPolicy": "Always", "terminationGracePeriodSeconds": 5, "nodeSelector": {"a": "b"},
        "volumes": [{"name": "v", "emptyDir": {}}, {"name": "c", "configMap": {"name": "m", "items": [{"key": "k", "path": "p"}]}},
                    {"name": "h", "hostPath": {"path": "/x", "type": "Directory"}}],
        "tolerations": [{"key": "k", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 3}],
        "affinity": {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [
            {"topologyKey": "zone", "labelSelector": {"matchLabels": {"a": "b"}}}]},
            "nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [
                {"weight": 5, "preference": {"matchExpressions": [{"key": "a", "operator": "In", "values": ["b"]}]}}]}},
        "topologySpreadConstraints": [{"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule"}],
        "securityContext": {"runAsUser": 5, "fsGroup": 5},
        "containers": [{"name": "c", "image": "i", "imagePullPolicy": "Always",
            "ports": [{"name": "http", "containerPort": 80, "protocol": "TCP"}],
            "env": [{"name": "A", "value": "b"}, {"name": "N", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}],
            "resources": {"requests": {"cpu": "1"}, "limits": {"cpu": "2"}},
            "volumeMounts": [{"name": "v", "mountPath": "/v", "subPath": "x"}],
            "livenessProbe": {"httpGet": {"path": "/", "port": 80}, "periodSeconds": 3},
            "lifecycle": {"preStop": {"exec": {"command": ["x"]}}},
            "securityContext": {"runAsUser": 5}}]}},
    "/api/v1/namespaces/default/services": {"metadata": {"name": "s"}, "spec": {
        "type": "LoadBalancer", "sessionAffinity": "ClientIP", "externalTrafficPolicy": "Cluster", "selector": {"a": "b"},
        "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 5}}, "externalIPs": ["1.2.3.4"],
        "ports": [{"name": "a", "port": 80, "targetPort": 80, "protocol": "TCP"}, {"name": "b", "port": 81, "targetPort": "x"}]}},
    "/apis/apps/v1/namespaces/default/deployments": {"metadata": {"name": "d"}, "spec": {
        "replicas": 1, "minReadySeconds": 1, "revisionHistoryLimit": 1, "progressDeadlineSeconds": 5,
        "selector": {"matchLabels": {"a": "b"}, "matchExpressions": [{"key": "a", "operator": "In", "values": ["b"]}]},
        "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": "10%"}},
        "template": {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}}}},
    "/apis/apps/v1/namespaces/default/statefulsets": {"metadata": {"name": "d"}, "spec": {
        "replicas": 1, "serviceName": "s", "podManagementPolicy": "Parallel", "selector": {"matchLabels": {"a": "b"}},
        "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"partition": 1}},
        "template": {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}}}},
    "/apis/apps/v1/namespaces/default/daemonsets": {"metadata": {"name": "d"}, "spec": {
        "minReadySeconds": 1, "selector": {"matchLabels": {"a": "b"}},
        "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 1}},
        "template": {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}}}},
    "/api/v1/namespaces/default/replicationcontrollers": {"metadata": {"name": "d"}, "spec": {
        "replicas": 1, "selector": {"a": "b"},
        "template": {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}}}},
    "/apis/batch/v1/namespaces/default/jobs": {"metadata": {"name": "j"}, "spec": {
        "parallelism": 1, "completions": 1, "backoffLimit": 1, "activeDeadlineSeconds": 1, "ttlSecondsAfterFinished": 1,
        "template": {"spec": {"restartPolicy": "Never", "containers": [{"name": "c", "image": "i"}]}}}},
    "/apis/autoscaling/v1/namespaces/default/horizontalpodautoscalers": {"metadata": {"name": "h"}, "spec": {
        "minReplicas": 1, "maxReplicas": 2, "targetCPUUtilizationPercentage": 50, "scaleTargetRef": {"kind": "Deployment", "name": "d"}}},
    "/apis/networking.k8s.io/v1/namespaces/default/ingresses": {"metadata": {"name": "i"}, "spec": {
        "ingressClassName": "c", "tls": [{"hosts": ["a.b"], "secretName": "s"}],
        "rules": [{"host": "a.b", "http": {"paths": [{"path": "/", "pathType": "Prefix",
            "backend": {"service": {"name": "s", "port": {"number": 80}}}}]}}]}},
    "/apis/networking.k8s.io/v1/namespaces/default/networkpolicies": {"metadata": {"name": "n"}, "spec": {
        "podSelector": {"matchLabels": {"a": "b"}}, "policyTypes": ["Ingress"],
        "ingress": [{"ports": [{"port": 80, "protocol": "TCP"}], "from": [{"podSelector": {}}, {"ipBlock": {"cidr": "10.0.0.0/8", "except": ["10.1.0.0/16"]}}]}]}},
    "/apis/networking.k8s.io/v1/ingressclasses": {"metadata": {"name": "i"}, "spec": {"controller": "a.io/b", "parameters": {"kind": "K", "name": "n"}}},
    "/api/v1/namespaces/default/persistentvolumeclaims": {"metadata": {"name": "c"}, "spec": {
        "accessModes": ["ReadWriteOnce"], "storageClassName": "s", "volumeMode": "Block", "resources": {"requests": {"storage": "1Gi"}}}},
    "/api/v1/persistentvolumes": {"metadata": {"name": "v"}, "spec": {
        "accessModes": ["ReadWriteOnce"], "capacity": {"storage": "1Gi"}, "storageClassName": "s", "volumeMode": "Filesystem",
        "persistentVolumeReclaimPolicy": "Retain", "nfs": {"server": "s", "path": "/p"}}},
    "/apis/storage.k8s.io/v1/storageclasses": {"metadata": {"name": "s"}, "provisioner": "a.io/b", "reclaimPolicy": "Retain", "volumeBindingMode": "Immediate"},
    "/api/v1/namespaces/default/configmaps": {"metadata": {"name": "m", "labels": {"a": "b"}, "annotations": {"a": "b"}}, "data": {"k": "v"}},
    "/api/v1/namespaces/default/secrets": {"metadata": {"name": "m"}, "type": "kubernetes.io/tls", "data": {"tls.crt": "eA==", "tls.key": "eA=="}},
    "/api/v1/namespaces/default/limitranges": {"metadata": {"name": "l"}, "spec": {"limits": [
        {"type": "Container", "max": {"cpu": "2"}, "min": {"cpu": "1"}, "default": {"cpu": "2"}, "defaultRequest": {"cpu": "1"}}]}},
    "/api/v1/namespaces/default/resourcequotas": {"metadata": {"name": "q"}, "spec": {"hard": {"pods": "1"}, "scopes": ["BestEffort"]}},
    "/api/v1/namespaces/default/endpoints": {"metadata": {"name": "e"}, "subsets": [{"addresses": [{"ip": "10.0.0.1"}], "ports": [{"name": "a", "port": 1, "protocol": "TCP"}]}]},
    "/apis/scheduling.k8s.io/v1/priorityclasses": {"metadata": {"name": "p"}, "value": 5, "preemptionPolicy": "Never"},
    "/apis/coordination.k8s.io/v1/namespaces/default/leases": {"metadata": {"name": "l"}, "spec": {"leaseDurationSeconds": 5, "leaseTransitions": 1, "holderIdentity": "h"}},
    "/apis/rbac.authorization.k8s.io/v1/namespaces/default/roles": {"metadata": {"name": "r"}, "rules": [{"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]}]},
    "/apis/rbac.authorization.k8s.io/v1/namespaces/default/rolebindings": {"metadata": {"name": "r"}, "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "r"},
        "subjects": [{"kind": "User", "name": "u", "apiGroup": "rbac.authorization.k8s.io"}, {"kind": "ServiceAccount", "name": "s", "namespace": "default"}]},
    "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations": {"metadata": {"name": "w"}, "webhooks": [{
        "name": "a.b.c", "sideEffects": "None", "admissionReviewVersions": ["v1"], "failurePolicy": "Fail", "timeoutSeconds": 5,
        "clientConfig": {"service": {"name": "s", "namespace": "n", "path": "/p", "port": 443}},
        "rules": [{"operations": ["CREATE"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["pods"], "scope": "*"}]}]},
    "/apis/node.k8s.io/v1/runtimeclasses": {"metadata": {"name": "r"}, "handler": "h"},
}

# What updates and patches have besides.
MORE = {
    "/api/v1/namespaces": {"metadata": {"name": "n", "labels": {"a": "b"}}},
    "/api/v1/nodes": {"metadata": {"name": "n", "labels": {"a": "b"}}, "spec": {
        "podCIDR": "10.1.0.0/24", "podCIDRs": ["10.1.0.0/24"], "providerID": "p", "unschedulable": False,
        "taints": [{"key": "k", "value": "v", "effect": "NoSchedule"}]},
        "status": {"capacity": {"cpu": "2"}, "allocatable": {"cpu": "2"},
            "addresses": [{"type": "InternalIP", "address": "10.0.0.1"}, {"type": "Hostname", "address": "n"}],
            "conditions": [{"type": "Ready", "status": "True", "reason": "R", "message": "m"}]}},
    "/api/v1/namespaces/default/serviceaccounts": {"metadata": {"name": "s"}, "automountServiceAccountToken": False,
        "secrets": [{"name": "a"}, {"name": "b"}], "imagePullSecrets": [{"name": "a"}]},
    "/api/v1/namespaces/default/events": {"metadata": {"name": "e"}, "reason": "R", "message": "m", "type": "Normal", "count": 1,
        "involvedObject": {"kind": "Pod", "name": "p", "namespace": "default", "apiVersion": "v1"}, "source": {"component": "c"},
        "firstTimestamp": "2020-01-01T00:00:00Z", "lastTimestamp": "2020-01-01T00:00:00Z"},
    "/apis/events.k8s.io/v1/namespaces/default/events": {"metadata": {"name": "f"}, "eventTime": "2020-01-01T00:00:00.000000Z",
        "reportingController": "a.io/b", "reportingInstance": "i", "action": "A", "reason": "R", "type": "Normal", "note": "n",
        "regarding": {"kind": "Pod", "name": "p", "namespace": "default"}},
    "/api/v1/namespaces/default/podtemplates": {"metadata": {"name": "t"}, "template": {
        "metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}}},
    "/apis/apps/v1/namespaces/default/replicasets": {"metadata": {"name": "r"}, "spec": {
        "replicas": 1, "minReadySeconds": 1, "selector": {"matchLabels": {"a": "b"}},
        "template": {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}}}},
    "/apis/apps/v1/namespaces/default/controllerrevisions": {"metadata": {"name": "r"}, "revision": 1, "data": {"a": {"b": "c"}}},
    "/apis/rbac.authorization.k8s.io/v1/clusterroles": {"metadata": {"name": "r"},
        "rules": [{"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]}, {"nonResourceURLs": ["/a"], "verbs": ["get"]}]},
    "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings": {"metadata": {"name": "r"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "r"},
        "subjects": [{"kind": "Group", "name": "u", "apiGroup": "rbac.authorization.k8s.io"}, {"kind": "ServiceAccount", "name": "s", "namespace": "default"}]},
    "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations": {"metadata": {"name": "w"}, "webhooks": [{
        "name": "a.b.c", "sideEffects": "None", "admissionReviewVersions": ["v1"], "failurePolicy": "Ignore", "timeoutSeconds": 5,
        "reinvocationPolicy": "Never", "clientConfig": {"url": "https://a.b/c"}, "namespaceSelector": {"matchLabels": {"a": "b"}},
        "rules": [{"operations": ["CREATE"], "apiGroups": ["a.io"], "apiVersions": ["v1"], "resources": ["things"], "scope": "*"}]}]},
    "/apis/certificates.k8s.io/v1/certificatesigningrequests": {"metadata": {"name": "c"}, "spec": {
        "request": "LS0tLS1CRUdJTiBDRVJUSUZJQ0FURSBSRVFVRVNULS0tLS0KTUlISE1HNENBUUF3RERFS01BZ0dBMVVFQXd3QllUQlpNQk1HQnlxR1NNNDlBZ0VHQ0NxR1NNNDlBd0VIQTBJQQpCTGk1N3VFOWZiRFFQQ0R2SkNpRUZXY01WWEYrTGJuVDRaNzNsanIrbnl4SEpzNHAxVjB4azZEeE5EY2ZtUkZrCmIxS1VLb3AwSXdpdzd5QnFzTG1meEgyZ0FEQUtCZ2dxaGtqT1BRUURBZ05KQURCR0FpRUE4OE1kQUNBSVpPRVcKWlN1UVFad01vYms1aS9iZ3JqUFduY1h3L0tUSldBUUNJUURQSFVRN0xkL3NNa1BxWGlwa2lNcTZNVXVJM05VMApYbzgvS1VUL3F0OVJKQT09Ci0tLS0tRU5EIENFUlRJRklDQVRFIFJFUVVFU1QtLS0tLQo=", "signerName": "a.io/b", "usages": ["digital signature", "client auth"]}},
    "/apis/apiextensions.k8s.io/v1/customresourcedefinitions": {"metadata": {"name": "things.a.io"}, "spec": {
        "group": "a.io", "scope": "Namespaced", "names": {"plural": "things", "singular": "thing", "kind": "Thing", "shortNames": ["th"]},
        "versions": [{"name": "v1", "served": True, "storage": True,
            "additionalPrinterColumns": [{"name": "A", "type": "string", "jsonPath": ".spec.a"}],
            "schema": {"openAPIV3Schema": {"type": "object", "properties": {"spec": {"type": "object", "properties": {"a": {"type": "string"}}}}}}}]}},
    "/apis/apiregistration.k8s.io/v1/apiservices": {"metadata": {"name": "v1.b.io"}, "spec": {
        "group": "b.io", "version": "v1", "groupPriorityMinimum": 5, "versionPriority": 5, "insecureSkipTLSVerify": True,
        "service": {"name": "s", "namespace": "default", "port": 443}}},
    "/apis/storage.k8s.io/v1/csidrivers": {"metadata": {"name": "a.io"}, "spec": {
        "attachRequired": True, "podInfoOnMount": False, "volumeLifecycleModes": ["Persistent"]}},
    "/apis/storage.k8s.io/v1/csinodes": {"metadata": {"name": "n"}, "spec": {
        "drivers": [{"name": "a.io", "nodeID": "i", "topologyKeys": ["a.io/zone"], "allocatable": {"count": 5}}]}},
    "/apis/storage.k8s.io/v1/volumeattachments": {"metadata": {"name": "v"}, "spec": {
        "attacher": "a.io", "nodeName": "n", "source": {"persistentVolumeName": "v"}}},
}
