//! A worker program with two tasks, the Rust functions `greet` and `primes`.
//!
//! `cargo run --example rust_worker`, then submit jobs with one of these tasks.

use longshore_worker::{Context, TaskError, Worker};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let worker = Worker::builder()
        .task("greet", |ctx: Context, name: String| async move {
            Ok::<_, TaskError>(format!("hello {name}, from attempt {}", ctx.attempt()))
        })
        .blocking_task("primes", |_ctx: Context, limit: u64| {
            let is_prime =
                |n: &u64| (2..*n).take_while(|d| d * d <= *n).all(|d| !n.is_multiple_of(d));
            Ok::<_, TaskError>((2..limit).filter(is_prime).count())
        })
        .build()?;
    worker.run_from_env().await?;
    Ok(())
}
