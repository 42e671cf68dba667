//! CustomResourceDefinitions that go.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{ApiResource, DynamicObject};

use super::*;

const NAME: &str = "things.example.com";

fn versions(stored: &str) -> Value {
    let version = |name: &str| json!({"name": name, "served": true, "storage": name == stored, "schema": {"openAPIV3Schema": {"type": "object"}}});
    json!([version("v1"), version("v2")])
}

/// Nobody listens there.
fn webhook() -> Value {
    json!({"strategy": "Webhook", "webhook": {"conversionReviewVersions": ["v1"],
        "clientConfig": {"url": "https://127.0.0.1:1/convert"}}})
}

#[tokio::test(flavor = "multi_thread")]
async fn a_definition_whose_webhook_is_gone_says_so_and_goes_without_it() {
    let cluster = Cluster::start(Duration::from_secs(3600)).await;
    let definitions: Api<CustomResourceDefinition> = Api::all(cluster.client.clone());
    let definition = json!({"metadata": {"name": NAME}, "spec": {"group": "example.com", "scope": "Cluster",
        "names": {"plural": "things", "kind": "Thing"}, "versions": versions("v1")}});
    definitions.create(&PostParams::default(), &parse(definition)).await.expect("a definition");
    let resource = ApiResource {
        group: "example.com".to_owned(),
        version: "v1".to_owned(),
        api_version: "example.com/v1".to_owned(),
        kind: "Thing".to_owned(),
        plural: "things".to_owned(),
    };
    let things: Api<DynamicObject> = Api::all_with(cluster.client.clone(), &resource);
    let thing: DynamicObject =
        parse(json!({"apiVersion": "example.com/v1", "kind": "Thing", "metadata": {"name": "a"}}));
    let create = || async { things.create(&PostParams::default(), &thing).await.is_ok() };
    eventually("the kind is served", create).await;
    // From now on the one that stands there has to be converted, and nobody can.
    let spec = json!({"spec": {"versions": versions("v2"), "conversion": webhook()}});
    definitions.patch(NAME, &PatchParams::default(), &Patch::Merge(spec)).await.expect("a patch");
    definitions.delete(NAME, &DeleteParams::default()).await.expect("it is to go");
    let terminating = || async {
        let definition = definitions.get(NAME).await.expect("it stays while its objects do");
        let conditions = definition.status.and_then(|status| status.conditions).unwrap_or_default();
        let condition = conditions.into_iter().find(|condition| condition.type_ == "Terminating");
        condition.map(|it| (it.reason.unwrap_or_default(), it.message.unwrap_or_default()))
    };
    let failed = || async {
        terminating().await.is_some_and(|(reason, message)| {
            reason == "InstanceDeletionFailed"
                && message.starts_with("could not list instances: ")
                && message.contains("conversion webhook for example.com/v1, Kind=Thing failed")
        })
    };
    eventually("the definition says why it stays", failed).await;
    let spec = json!({"spec": {"conversion": {"strategy": "None", "webhook": null}}});
    definitions.patch(NAME, &PatchParams::default(), &Patch::Merge(spec)).await.expect("a patch");
    let gone = || async { definitions.get_opt(NAME).await.expect("an answer").is_none() };
    eventually("the definition goes", gone).await;
}
