//! RabbitMQ when links break.
