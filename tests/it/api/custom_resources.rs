//! Custom resources, tried with kubectl.

use crate::support::TestServer;

const DEFINITION: &str = r#"
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: crontabs.stable.example.com}
spec:
  group: stable.example.com
  scope: Namespaced
  names: {plural: crontabs, singular: crontab, kind: CronTab, shortNames: [ct], categories: [all]}
  versions:
  - name: v1
    served: true
    storage: true
    subresources: {status: {}, scale: {specReplicasPath: .spec.replicas, statusReplicasPath: .status.replicas, labelSelectorPath: .status.selector}}
    selectableFields: [{jsonPath: .spec.color}]
    additionalPrinterColumns:
    - {name: Spec, type: string, jsonPath: .spec.cronSpec}
    - {name: Replicas, type: integer, jsonPath: .spec.replicas}
    schema:
      openAPIV3Schema:
        type: object
        properties:
          spec:
            type: object
            description: What is wanted.
            required: [cronSpec]
            properties:
              cronSpec: {type: string, pattern: '^[^ ]+( [^ ]+){4}$', description: When it runs.}
              image: {type: string}
              color: {type: string, enum: [red, blue]}
              replicas: {type: integer, minimum: 1, maximum: 10, default: 1}
          status: {type: object, x-kubernetes-preserve-unknown-fields: true}
  - name: v1beta1
    served: true
    storage: false
    schema: {openAPIV3Schema: {type: object, x-kubernetes-preserve-unknown-fields: true}}
"#;

fn object(name: &str, spec: &str) -> String {
    format!("apiVersion: stable.example.com/v1\nkind: CronTab\nmetadata: {{name: {name}}}\nspec: {spec}\n")
}

async fn served() -> TestServer {
    let server = TestServer::with_controllers().await;
    let file = server.file("crd.yaml", DEFINITION);
    server.kubectl(&["apply", "-f", &file]).ok();
    let wait = ["wait", "--for=condition=Established", "crd/crontabs.stable.example.com", "--timeout=20s"];
    server.kubectl(&wait).ok();
    server
}

#[tokio::test(flavor = "multi_thread")]
async fn kubectl_works_on_a_custom_kind() {
    let server = served().await;
    let run = |args: &str| server.kubectl(&args.split(' ').collect::<Vec<_>>());
    let one = object("one", "{cronSpec: '* * * * */5', image: i, color: blue}");
    let file = server.file("one.yaml", &one);
    assert_eq!(run(&format!("apply -f {file}")).ok(), "crontab.stable.example.com/one created\n");
    assert_eq!(run(&format!("apply -f {file}")).ok(), "crontab.stable.example.com/one unchanged\n");
    let table = run("get ct").ok();
    assert!(table.starts_with("NAME   SPEC          REPLICAS\none    * * * * */5   1\n"), "{table}");
    assert!(run("get all").ok().contains("crontab.stable.example.com/one"));
    assert_eq!(
        run("get ct --field-selector spec.color=blue -o name").ok(),
        "crontab.stable.example.com/one\n"
    );
    assert_eq!(run("get ct --field-selector spec.color=red -o name").ok(), "");
    assert!(run("get ct --field-selector spec.image=i").err().contains("field label not supported"));
    assert!(run("explain crontab.spec.cronSpec").ok().contains("When it runs."));
    let explained = run("explain crontab.metadata").ok();
    assert!(explained.contains("Standard object's metadata"), "{explained}");
    assert!(explained.contains("CreationTimestamp is a timestamp"), "{explained}");
    assert!(run("explain crontab").ok().contains("APIVersion defines the versioned schema"));
    assert!(run("api-resources --api-group=stable.example.com").ok().contains("crontabs"));
    assert!(run("scale crontab/one --replicas=3").ok().contains("scaled"));
    let path = "jsonpath={.spec.replicas}/{.metadata.generation}";
    assert_eq!(run(&format!("get ct one -o {path}")).ok(), "3/2");
    let patch = [
        "patch",
        "ct",
        "one",
        "--subresource=status",
        "--type=merge",
        "-p",
        r#"{"status":{"x":1},"spec":{"image":"no"}}"#,
    ];
    server.kubectl(&patch).ok();
    let path = "jsonpath={.status.x}/{.spec.image}/{.metadata.generation}";
    assert_eq!(run(&format!("get ct one -o {path}")).ok(), "1/i/2");
    let other = run("get crontabs.v1beta1.stable.example.com one -o jsonpath={.apiVersion}").ok();
    assert_eq!(other, "stable.example.com/v1beta1");
    assert!(run("describe ct one").ok().contains("Cron Spec:"));
    let strategic = server.kubectl(&["patch", "ct", "one", "--type=strategic", "-p", "{}"]).err();
    assert!(strategic.contains("UnsupportedMediaType") || strategic.contains("strategic"), "{strategic}");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn mistakes_in_custom_objects_are_refused() {
    let server = served().await;
    let create = |spec: &str, flag: &str| {
        let file = server.file("x.yaml", &object("x", spec));
        server.kubectl(&["create", "-f", &file, flag, "--dry-run=server"])
    };
    let check = |spec: &str, expect: &str| {
        let said = create(spec, "--validate=false").err();
        assert!(said.contains(expect), "{spec}: {said}");
    };
    check("{}", "spec.cronSpec: Required value");
    check("{cronSpec: x}", "spec.cronSpec: Invalid value: \"x\": spec.cronSpec in body should match");
    check(
        "{cronSpec: '1 2 3 4 5', replicas: 11}",
        "spec.replicas in body should be less than or equal to 10",
    );
    check(
        "{cronSpec: '1 2 3 4 5', replicas: a}",
        "spec.replicas in body must be of type integer: \"string\"",
    );
    check(
        "{cronSpec: '1 2 3 4 5', color: green}",
        "spec.color: Unsupported value: \"green\": supported values:",
    );
    let unknown = "{cronSpec: '1 2 3 4 5', odd: 1}";
    let said = create(unknown, "--validate=true").err();
    assert!(said.contains("strict decoding error: unknown field \"spec.odd\""), "{said}");
    let said = create(unknown, "--validate=warn");
    assert!(said.stderr.contains("unknown field \"spec.odd\""), "{said:?}");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_definition_takes_its_objects_with_it() {
    let server = served().await;
    let run = |args: &str| server.kubectl(&args.split(' ').collect::<Vec<_>>());
    let file = server.file("one.yaml", &object("one", "{cronSpec: '1 2 3 4 5'}"));
    run(&format!("create -f {file}")).ok();
    let uid = run("get ct one -o jsonpath={.metadata.uid}").ok();
    let owned = format!(
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: owned, ownerReferences: [{{apiVersion: stable.example.com/v1, kind: CronTab, name: one, uid: {uid}}}]}}\n"
    );
    let owned = server.file("owned.yaml", &owned);
    run(&format!("create -f {owned}")).ok();
    run("delete crd crontabs.stable.example.com --timeout=20s").ok();
    let gone = run("get ct").err();
    let words = ["the server doesn't have a resource type", "could not find the requested resource"];
    assert!(words.iter().any(|word| gone.contains(word)), "{gone}");
    run("wait --for=delete configmap/owned --timeout=20s").ok();
    let second = server.file("crd.yaml", DEFINITION);
    run(&format!("create -f {second}")).ok();
    run("wait --for=condition=Established crd/crontabs.stable.example.com --timeout=20s").ok();
    assert_eq!(run("get ct -A -o name").ok(), "");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_whole_is_described_for_older_clients() {
    let server = served().await;
    let document = server.kubectl(&["get", "--raw", "/openapi/v2"]).ok();
    let document: serde_json::Value = serde_json::from_str(&document).expect("JSON");
    let spec = &document["definitions"]["com.example.stable.v1.CronTab"]["properties"]["spec"];
    assert_eq!(spec["properties"]["cronSpec"]["description"], "When it runs.");
    assert!(document["paths"]["/apis/stable.example.com/v1/namespaces/{namespace}/crontabs"].is_object());
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_field_that_a_definition_names_later_selects_what_was_there_before() {
    let server = served().await;
    let run = |args: &str| server.kubectl(&args.split(' ').collect::<Vec<_>>());
    for (name, image) in [("one", "i"), ("two", "j")] {
        let file = server
            .file("object.yaml", &object(name, &format!("{{cronSpec: '* * * * */5', image: {image}}}")));
        run(&format!("apply -f {file}")).ok();
    }
    let before = "[{jsonPath: .spec.color}]";
    assert!(DEFINITION.contains(before));
    let wider = DEFINITION
        .replace(before, "[{jsonPath: .spec.color}, {jsonPath: .spec.image}, {jsonPath: .spec.replicas}]");
    let file = server.file("crd.yaml", &wider);
    run(&format!("apply -f {file}")).ok();
    server.eventually("the field is known", || {
        run("get ct --field-selector spec.image=j -o name").stdout == "crontab.stable.example.com/two\n"
    });
    // What is stored anew and what is not, and a default that nobody stored.
    run("annotate ct one a=b").ok();
    let both = "crontab.stable.example.com/one\ncrontab.stable.example.com/two\n";
    assert_eq!(run("get ct --field-selector spec.replicas=1 -o name").ok(), both);
    assert_eq!(run("get ct --field-selector spec.image!=j -o name").ok(), "crontab.stable.example.com/one\n");
}

const EMBEDDING: &str = r"
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: waldos.stable.example.com}
spec:
  group: stable.example.com
  scope: Namespaced
  names: {plural: waldos, singular: waldo, kind: Waldo}
  versions:
  - name: v1
    served: true
    storage: true
    schema:
      openAPIV3Schema:
        type: object
        properties:
          spec: {type: object, x-kubernetes-preserve-unknown-fields: true, x-kubernetes-embedded-resource: true}
          status: {type: object, properties: {pod: {type: object, x-kubernetes-embedded-resource: true, properties: {spec: {type: object}}}}}
";

/// As upstream's suite asks: a client that checks by version 2 of OpenAPI takes anything in an object that keeps unknown fields.
#[tokio::test(flavor = "multi_thread")]
async fn objects_inside_of_objects_are_checked_as_objects() {
    let server = TestServer::with_controllers().await;
    let run = |args: &str| server.kubectl(&args.split(' ').collect::<Vec<_>>());
    let file = server.file("crd.yaml", EMBEDDING);
    run(&format!("apply -f {file}")).ok();
    run("wait --for=condition=Established crd/waldos.stable.example.com --timeout=20s").ok();
    let waldo = |rest: &str| {
        format!("apiVersion: stable.example.com/v1\nkind: Waldo\nmetadata: {{name: a}}\n{rest}\n")
    };
    let file = server
        .file("good.yaml", &waldo("spec: {apiVersion: v1, kind: Pod, metadata: {name: x}, a: null, b: [1]}"));
    run(&format!("create -f {file}")).ok();
    run("delete waldo a").ok();
    let file = server.file(
        "bad.yaml",
        &waldo("status: {pod: {apiVersion: v1, kind: Pod, metadata: {name: a/b, labels: {a: '!'}}}}"),
    );
    let refusal = run(&format!("create --validate=false -f {file}")).err();
    for field in ["status.pod.metadata.name", "status.pod.metadata.labels"] {
        assert!(refusal.contains(field), "{refusal}");
    }
    let file = server.file("typeless.yaml", &waldo("status: {pod: {}}"));
    let refusal = run(&format!("create --validate=false -f {file}")).err();
    assert!(refusal.contains("status.pod.kind: Required value"), "{refusal}");
    assert!(run("explain waldo.status.pod.metadata").ok().contains("CreationTimestamp is a timestamp"));
}
