//! Measures quorum against classic for work queues, on a RabbitMQ of its own.
fn main() {}
