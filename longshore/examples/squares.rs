//! An application with a worker of its own, and a test of both in one process.
//!
//! `cargo run -p longshore --example squares -- worker`, and in another terminal `cargo run -p
//! longshore --example squares`. Needs RabbitMQ, Redis and `longshore scheduler`.
#![expect(clippy::print_stdout, reason = "standard output is for the results")]

use longshore::{Client, Config, Context, Document, Error, Split, TaskResult, Worker};

/// The worker of the application.
fn worker() -> Result<Worker, Error> {
    let square = |_: Context, n: i64| async move { TaskResult::Ok(n * n) };
    Worker::builder().task("square", square).build()
}

/// Submits a job, waits for it, and gives the sum of its results.
async fn sum_of_squares(client: &Client, upto: i64) -> Result<i64, Error> {
    let job = client.submit(&Document::new("square", Split::range(0..upto))).await?;
    let end = job.wait().await?;
    println!("{}: {} of {} done", end.state, end.done, end.total);
    let (mut sum, mut results) = (0, job.results::<i64>());
    while let Some(result) = results.next().await {
        sum += result?.value;
    }
    Ok(sum)
}

#[tokio::main]
async fn main() -> Result<(), Error> {
    if std::env::args().any(|argument| argument == "worker") {
        return worker()?.run_from_env().await;
    }
    let client = Client::connect(&Config::from_env()?).await?;
    println!("{}", sum_of_squares(&client, 1_000).await?);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn squares_are_summed() -> Result<(), Error> {
        let cluster = longshore::LocalCluster::start(worker()?);
        assert_eq!(sum_of_squares(cluster.client(), 10).await?, 285);
        cluster.stop().await
    }
}
