//! The scheduler while the ledger or the broker is away, or talks nonsense.

use longshore_broker::Queue;

use crate::outage::Health;
use crate::world::{World, succeed};

#[tokio::test(start_paused = true)]
async fn a_document_that_the_ledger_cannot_take_is_refused_with_its_error() {
    let world = World::usual(succeed);
    world.outage.set_ledger(Health::Corrupt);
    let job = world.submit(3, "").await;
    let mut dead = world.broker.subscribe(&Queue::Dead, 1).await;
    let delivery = dead.next().await.unwrap();
    delivery.settle.ack().await;
    let (_, reason) = delivery.headers.iter().find(|(name, _)| name == "reason").unwrap();
    assert!(reason.contains("admit with something unexpected"), "{reason}");
    assert_eq!(world.ledger.job(job).await.unwrap(), None);
    world.outage.set_ledger(Health::Well);
    let job = world.submit(3, "").await;
    world.succeeds(job).await;
    world.stop().await;
}
