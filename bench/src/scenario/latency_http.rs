//! `latency-http`: the time from submission to result through the HTTP API, beside the direct one.

use std::time::Instant;

use async_trait::async_trait;
use futures_util::TryStreamExt;
use longshore_producer::{Client, ServerSettings};
use serde_json::json;

use super::Scenario;
use super::latency::{WARM_UP, run_job};
use crate::Error;
use crate::baseline::BaselineValues;
use crate::report::{Sample, Unit, percentile, sample};
use crate::testbed::{Testbed, job};

/// The number of pairs of jobs of a run, times the scale.
const PAIRS: u64 = 250;

/// Jobs through the HTTP API and jobs without it, one after another, in turn.
#[derive(Default)]
pub(super) struct LatencyHttp {
    /// The client of the server, once that runs.
    http: Option<Client>,
}

#[async_trait]
impl Scenario for LatencyHttp {
    async fn warm_up(&mut self, testbed: &mut Testbed<'_>) -> Result<(), Error> {
        let url = testbed.fleet.api().await?;
        let http = self.http.insert(Client::http(&ServerSettings::new(url))?);
        for _ in 0..WARM_UP {
            run_job(&testbed.client).await?;
            run_over_http(http).await?;
        }
        Ok(())
    }

    async fn run(
        &mut self,
        testbed: &mut Testbed<'_>,
        _: BaselineValues,
    ) -> Result<Vec<Sample>, Error> {
        let http = self.http.as_ref().expect("the warm-up has made it");
        let (mut direct, mut over_http) = (Vec::new(), Vec::new());
        for _ in 0..testbed.size(PAIRS, 10) {
            direct.push(run_job(&testbed.client).await?);
            over_http.push(run_over_http(http).await?);
        }
        let mut both = |share| (percentile(&mut over_http, share), percentile(&mut direct, share));
        let ((p50, direct_p50), (p99, direct_p99)) = (both(0.5), both(0.99));
        Ok(vec![
            sample("p50", Unit::Ms, p50),
            sample("p99", Unit::Ms, p99),
            sample("p50, times direct", Unit::Ratio, p50 / direct_p50).at_most(1.5),
            sample("p99, times direct", Unit::Ratio, p99 / direct_p99).at_most(1.5),
        ])
    }
}

/// Runs one job through a server: one request to submit it, and one for its result. Returns its
/// duration in milliseconds.
async fn run_over_http(client: &Client) -> Result<f64, Error> {
    let document = job("noop", 1, &json!({}));
    let begun = Instant::now();
    let job = client.submit(&document).await?;
    if job.follow_results(0..1).try_next().await?.is_none() {
        return Err(Error::Unexpected(format!("job {} has no result", job.id())));
    }
    Ok(begun.elapsed().as_secs_f64() * 1e3)
}
