//! Keys of the store's tables. `kind u8 │ bytes`, or with an odd kind the parts of a key.

use shardmill_core::{Scope, TenantId};
use shardmill_store::{Key, Table};

use crate::input::Input;

/// What splits is made of its parts again, byte for byte; parts never run into each other.
pub fn check(data: &[u8]) {
    let mut input = Input(data);
    if input.u8() % 2 == 0 {
        split(input.0);
    } else {
        join(&mut input);
    }
}

fn split(bytes: &[u8]) {
    let key = Key::from_bytes(bytes.to_vec());
    let (Some((scope, parts)), Some(table)) = (key.split(), key.table()) else {
        return;
    };
    assert_eq!(of(table, &scope, &parts), key);
}

fn join(input: &mut Input<'_>) {
    let table = Table::from_number(input.u8() % 20).unwrap_or(Table::State);
    let scope = Scope {
        tenant: input.text().parse().unwrap_or(TenantId::DEFAULT),
        region: input.text().parse().unwrap_or_default(),
    };
    let mut parts = Vec::new();
    while !input.is_empty() {
        parts.push(input.short());
    }
    let key = of(table, &scope, &parts);
    assert_eq!(key.split(), Some((scope.clone(), parts.clone())));
    assert_eq!(key.table(), Some(table));
    for count in 0..parts.len() {
        let prefix = of(table, &scope, &parts[..count]);
        assert!(key.as_bytes().starts_with(prefix.as_bytes()) && prefix < key);
    }
    if let [first, second, rest @ ..] = parts.as_slice() {
        // The same bytes in other parts are another key.
        let joined = [*first, *second].concat();
        let other = of(table, &scope, &[&[&joined[..]], rest].concat());
        assert_ne!(other, key);
    }
}

fn of(table: Table, scope: &Scope, parts: &[&[u8]]) -> Key {
    let parts = parts.iter();
    parts.fold(Key::new(table, scope), |key, part| key.part(part))
}
