//! End-to-end tests of Longshore: real processes, real RabbitMQ, real Redis.
