//! The functions of the language and of its libraries: their signatures, and what they do.

mod authorizer;
mod convert;
mod formats;
mod lists;
mod net;
mod operators;
mod optional;
mod semver;
mod signature;
mod strings;
mod times;
mod units;
mod url;

use std::collections::HashMap;
use std::sync::LazyLock;

use super::Budget;
use super::fault::Fault;
use super::value::Val;

pub use authorizer::{Authorization, Authorize, Question};
pub use convert::{decode_base64, text_of};
pub use formats::Format;
pub use semver::Semver;
pub use signature::{Overload, opaque};
pub use strings::{matched, pattern};
pub use times::parse_duration;
pub use url::Url;

/// What a function does with its arguments, the target first.
pub type Run = for<'a> fn(&mut Budget, &[Val<'a>]) -> Result<Val<'a>, Fault>;

/// A function by name, its signatures, and what it does.
type Entry = (&'static str, &'static str, Run);

/// A function.
#[derive(Debug)]
pub struct Function {
    pub name: &'static str,
    pub overloads: Vec<Overload>,
    pub run: Run,
}

const ALL: &[&[Entry]] = &[
    operators::ALL,
    convert::ALL,
    strings::ALL,
    lists::ALL,
    optional::ALL,
    times::ALL,
    net::ALL,
    url::ALL,
    units::ALL,
    semver::ALL,
    formats::ALL,
    authorizer::ALL,
];

static FUNCTIONS: LazyLock<HashMap<&'static str, Function>> = LazyLock::new(|| {
    let mut functions: HashMap<&'static str, Function> = HashMap::new();
    for (name, signatures, run) in ALL.iter().copied().flatten() {
        let overloads = signature::read(signatures);
        functions.insert(name, Function { name, overloads, run: *run });
    }
    functions
});

/// The function of a name.
pub fn function(name: &str) -> Option<&'static Function> {
    FUNCTIONS.get(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_function_stands_once_and_has_a_signature() {
        let mut names = std::collections::BTreeSet::new();
        for (name, signatures, _) in ALL.iter().copied().flatten() {
            assert!(names.insert(*name), "{name} stands twice");
            assert!(!signature::read(signatures).is_empty(), "{name}");
        }
        assert!(function("size").is_some_and(|size| size.overloads.len() == 8));
    }
}
