//! Private RabbitMQ and Redis servers for tests: free ports, own data folders, stopped when the test ends.
