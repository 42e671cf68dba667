//! The environment of a container.

use super::downward::{self, Target};
use crate::validate::{Check, FieldError, config_map_key, env_var_name};

const SOURCES: &[&str] = &["fieldRef", "resourceFieldRef", "configMapKeyRef", "secretKeyRef", "fileKeyRef"];

/// Rule: `ValidateEnv` and `ValidateEnvFrom`.
pub fn environment(container: &mut Check<'_, '_>) {
    container.each("env", |variable| {
        if !variable.need("name", "").is_empty() {
            variable.named("name", env_var_name);
        }
        let plain = !variable.text("value").is_empty();
        variable.within("valueFrom", |source| value_from(source, plain));
    });
    container.each("envFrom", |source| {
        if !source.text("prefix").is_empty() {
            source.named("prefix", env_var_name);
        }
        let said = ["configMapRef", "secretRef"].iter().filter(|kind| source.has(kind)).count();
        for kind in ["configMapRef", "secretRef"] {
            source.within(kind, |reference| {
                reference.need("name", "");
            });
        }
        let why = match said {
            0 => "must specify one of: `configMapRef` or `secretRef`",
            1 => return,
            _ => "may not have more than one field specified at a time",
        };
        source.push(FieldError::invalid(&source.path, "", why));
    });
}

fn value_from(source: &mut Check<'_, '_>, plain: bool) {
    source.within("fieldRef", |field| downward::field(field, Target::Environment));
    source.within("resourceFieldRef", |field| downward::resource(field, false));
    for kind in ["configMapKeyRef", "secretKeyRef"] {
        source.within(kind, |reference| {
            reference.need("name", "");
            if !reference.need("key", "").is_empty() {
                reference.named("key", config_map_key);
            }
        });
    }
    let why = match SOURCES.iter().filter(|kind| source.has(kind)).count() {
        0 => "must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef` or `secretKeyRef`",
        _ if plain => "may not be specified when `value` is not empty",
        1 => return,
        _ => "may not have more than one field specified at a time",
    };
    source.push(FieldError::invalid(&source.path, "", why));
}
