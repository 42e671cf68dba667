//! Running the same work many times, and saying what came out.

use std::time::{Duration, Instant};

use anyhow::Result;

/// Workers at once, each with a connection of its own.
pub const WORKERS: usize = 16;

/// What one run of some work took.
#[derive(Clone, Debug, Default)]
pub struct Figures {
    pub per_second: f64,
    pub p50: Duration,
    pub p99: Duration,
}

/// Does `total` operations, shared among the workers; `operate` gets the worker's own state and the operation's number.
pub async fn measure<S, F>(workers: Vec<S>, total: usize, operate: F) -> Result<Figures>
where
    S: Send + 'static,
    F: AsyncOperation<S>,
{
    let share = total / workers.len();
    let begun = Instant::now();
    let running = workers.into_iter().enumerate().map(|(worker, mut state)| {
        let operate = operate.clone();
        tokio::task::spawn(async move {
            let mut taken = Vec::with_capacity(share);
            for n in 0..share {
                let begun = Instant::now();
                operate.run(&mut state, worker * share + n).await?;
                taken.push(begun.elapsed());
            }
            anyhow::Ok(taken)
        })
    });
    let mut taken = Vec::new();
    for worker in futures::future::try_join_all(running).await? {
        taken.extend(worker?);
    }
    let seconds = begun.elapsed().as_secs_f64();
    taken.sort();
    Ok(Figures {
        per_second: taken.len() as f64 / seconds,
        p50: taken[taken.len() / 2],
        p99: taken[taken.len() * 99 / 100],
    })
}

/// One operation of a measurement.
pub trait AsyncOperation<S>: Clone + Send + 'static {
    fn run(&self, state: &mut S, n: usize) -> impl Future<Output = Result<()>> + Send;
}

/// The run with the median rate.
pub fn median(mut runs: Vec<Figures>) -> Figures {
    runs.sort_by(|a, b| a.per_second.total_cmp(&b.per_second));
    runs.swap_remove(runs.len() / 2)
}

pub fn print(what: &str, figures: &Figures) {
    let ms = |time: Duration| time.as_secs_f64() * 1e3;
    println!(
        "{what:<44} {:>9.0} /s   p50 {:>7.3} ms   p99 {:>7.3} ms",
        figures.per_second,
        ms(figures.p50),
        ms(figures.p99)
    );
}

/// `ours` over `theirs`, beside what we aim at.
pub fn ratio(what: &str, ours: f64, theirs: f64, aim: &str) {
    println!("{what:<44} {:>9.2} x   (aim: {aim})", ours / theirs);
}
