//! Where functions are stored.

use shardmill_core::Scope;
use shardmill_store::{Key, Table};

use super::reference::{FunctionRef, Qualifier};

/// Where a function is stored.
pub fn function_key(scope: &Scope, name: &str) -> Key {
    Key::new(Table::Function, scope).part(name)
}

/// Where a module is stored.
pub(crate) fn module_key(scope: &Scope, digest: &str) -> Key {
    Key::new(Table::Module, scope).part(digest)
}

/// Where the versions of a function are stored.
pub(super) fn versions_of(scope: &Scope, name: &str) -> Key {
    Key::new(Table::Version, scope).part(name)
}

pub(super) fn version_key(scope: &Scope, name: &str, version: u64) -> Key {
    versions_of(scope, name).number(version)
}

/// Where the aliases of a function are stored.
pub(super) fn aliases_of(scope: &Scope, name: &str) -> Key {
    Key::new(Table::Alias, scope).part(name)
}

pub(super) fn alias_key(scope: &Scope, name: &str, alias: &str) -> Key {
    aliases_of(scope, name).part(alias)
}

/// The keys that are there as long as what is named is.
pub(crate) fn keys_of(scope: &Scope, named: &FunctionRef) -> Vec<Key> {
    let name = named.name.as_str();
    let qualified = match &named.qualifier {
        None | Some(Qualifier::Latest) => None,
        Some(Qualifier::Version(version)) => Some(version_key(scope, name, *version)),
        Some(Qualifier::Alias(alias)) => Some(alias_key(scope, name, alias)),
    };
    let function = function_key(scope, name);
    [function].into_iter().chain(qualified).collect()
}
