//! What expressions of admission may name.

use std::sync::{Arc, LazyLock};

use crate::cel::{Declared, Environment, Form, Items, Type, Variable};

/// Which variables there are beside those that always are.
#[derive(Clone, Debug, Default)]
pub struct Given {
    pub params: bool,
    pub authorizer: bool,
    /// Of the policy itself, with their types; `None`: `variables` is unknown here.
    pub variables: Option<Vec<(String, Type)>>,
    /// Whether objects and patches may be made.
    pub makes: bool,
    /// What is known of the types of `object` and `oldObject`.
    pub object: Option<Arc<Declared>>,
    /// What is known of the type of `params`.
    pub params_type: Option<Arc<Declared>>,
}

/// Where variables stand among the globals of an evaluation.
pub mod place {
    pub const OBJECT: usize = 0;
    pub const OLD: usize = 1;
    pub const REQUEST: usize = 2;
    pub const NAMESPACE: usize = 3;
    pub const PARAMS: usize = 4;
    pub const AUTHORIZER: usize = 5;
    pub const RESOURCE: usize = 6;
    pub const VARIABLES: usize = 7;
    pub const COUNT: usize = 8;
}

fn text() -> Declared {
    Declared::plain(Form::Text, u64::MAX, 2)
}

fn object(name: &str, fields: &[(&str, Declared)]) -> Declared {
    let fields = fields.iter().map(|(name, declared)| ((*name).to_owned(), declared.clone())).collect();
    Declared::plain_object(name, fields)
}

fn texts() -> Declared {
    Declared::list(text(), u64::MAX, Items::Order)
}

/// The request that is to be admitted.
pub static REQUEST: LazyLock<Arc<Declared>> = LazyLock::new(|| {
    let of = |name: &str, last: &str| object(name, &[("group", text()), ("version", text()), (last, text())]);
    let kind = of("kubernetes.GroupVersionKind", "kind");
    let resource = of("kubernetes.GroupVersionResource", "resource");
    let user = object(
        "kubernetes.UserInfo",
        &[
            ("username", text()),
            ("uid", text()),
            ("groups", texts()),
            ("extra", Declared::map(texts(), u64::MAX)),
        ],
    );
    Arc::new(object(
        "kubernetes.AdmissionRequest",
        &[
            ("kind", kind.clone()),
            ("resource", resource.clone()),
            ("subResource", text()),
            ("requestKind", kind),
            ("requestResource", resource),
            ("requestSubResource", text()),
            ("name", text()),
            ("namespace", text()),
            ("operation", text()),
            ("userInfo", user),
            ("dryRun", Declared::plain(Form::Bool, 1, 4)),
            ("options", Declared::plain(Form::Dyn, u64::MAX, 2)),
        ],
    ))
});

/// The namespace that the object is in.
pub static NAMESPACE: LazyLock<Arc<Declared>> = LazyLock::new(|| {
    let time = || Declared::plain(Form::DateTime, 32, 21);
    let int = || Declared::plain(Form::Int, 1, 1);
    let condition = object(
        "kubernetes.NamespaceCondition",
        &[
            ("status", text()),
            ("type", text()),
            ("lastTransitionTime", time()),
            ("message", text()),
            ("reason", text()),
        ],
    );
    let metadata = object(
        "kubernetes.NamespaceMetadata",
        &[
            ("name", text()),
            ("generateName", text()),
            ("namespace", text()),
            ("labels", Declared::map(text(), u64::MAX)),
            ("annotations", Declared::map(text(), u64::MAX)),
            ("UID", text()),
            ("creationTimestamp", time()),
            ("deletionGracePeriodSeconds", int()),
            ("deletionTimestamp", time()),
            ("generation", int()),
            ("resourceVersion", text()),
            ("finalizers", texts()),
        ],
    );
    let conditions = Declared::list(condition, u64::MAX, Items::Order);
    let status = object("kubernetes.NamespaceStatus", &[("conditions", conditions), ("phase", text())]);
    let spec = object("kubernetes.NamespaceSpec", &[("finalizers", texts())]);
    Arc::new(object("kubernetes.Namespace", &[("metadata", metadata), ("spec", spec), ("status", status)]))
});

/// The environment of an expression. What is not given cannot be named.
pub fn environment(given: &Given) -> Environment {
    // A name that no expression has.
    const NOTHING: &str = "";
    let named = |there: bool, name: &'static str| if there { name } else { NOTHING };
    let known = |name: &str, declared: &Option<Arc<Declared>>| match declared {
        Some(declared) => Variable::declared(name, Arc::clone(declared)),
        None => Variable::new(name, Type::Dyn),
    };
    let variables = Type::object("kubernetes.variables", given.variables.clone().unwrap_or_default());
    let all = vec![
        known("object", &given.object),
        known("oldObject", &given.object),
        Variable::declared("request", Arc::clone(&REQUEST)),
        Variable::declared("namespaceObject", Arc::clone(&NAMESPACE)),
        known(named(given.params, "params"), &given.params_type),
        Variable::new(
            named(given.authorizer, "authorizer"),
            Type::Opaque("kubernetes.authorization.Authorizer"),
        ),
        Variable::new(
            named(given.authorizer, "authorizer.requestResource"),
            Type::Opaque("kubernetes.authorization.ResourceCheck"),
        ),
        Variable::new(named(given.variables.is_some(), "variables"), variables),
    ];
    let environment = Environment::new(all);
    if given.makes { environment.making_objects() } else { environment }
}
