//! The corpus of attacks: hostile modules (`tests/hostile/*.wat` and those that `bombs` makes) and
//! hostile requests (`requests`), each with what must come of it. One closed host stands them all,
//! while a second tenant's traffic is checked record by record. `docs/security.md` has the corpus
//! as a table.

mod bombs;
mod document;
mod expected;
mod modules;
mod neighbour;
mod raw;
mod requests;
mod sign;
mod site;
mod twins;
mod victim;

use self::expected::Complaints;
use self::site::Site;
use self::victim::Victim;

/// Most memory that the host's process may have had at any time, MiB. It was 141 when this was written:
/// the attacker alone may have 768 MiB of guests at a time, and touches 130.
const MOST_MEMORY_MIB: u64 = 512;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_attack_of_the_corpus_reaches_the_other_tenant() {
    let mut site = Site::start().await;
    let victim = Victim::begin(&site).await;
    let theirs = victim.theirs();
    let attack = async {
        neighbour::sees_nothing(&site).await;
        let twins = twins::are_like_nothing(&site, &theirs).await;
        let (modules, requests) = tokio::join!(modules::run(&site), requests::run(&site));
        vec![twins, modules, requests]
    };
    let (victim, complaints) = victim.while_it_lasts(&site, attack).await;
    Complaints::end(complaints);
    victim.is_unharmed(&site).await;
    let memory = site.peak_memory_mib();
    println!("the host's process took {memory} MiB");
    assert!(memory <= MOST_MEMORY_MIB, "the host took {memory} MiB");
    site.log_is_clean();
    site.end();
}

#[test]
fn the_table_in_the_document_is_the_corpus() {
    document::is_up_to_date();
}
