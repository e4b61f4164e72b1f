//! What the languages take, on the fake backend: nothing but themselves.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use sandscript::api::{Args, Ctx, ErrorKind, FnSpec, Host, HostBuilder, Type, Value};
use sandscript::backend::fake::FakeBackend;
use sandscript::lang::{self, Source};

use super::median;
use super::table::{Table, ms};

fn host() -> HostBuilder {
    let nothing = |_: Ctx, _: Args| async { Ok(Value::Unit) };
    Host::builder(Arc::new(FakeBackend::new()))
        .function(FnSpec::function("nothing", nothing))
        .function(FnSpec::function("thousand", thousand).param(
            "body",
            Type::Callback(Vec::new()),
            "",
        ))
}

/// Runs a function of the script a thousand times, side by side.
async fn thousand(ctx: Ctx, args: Args) -> sandscript::api::Result<Value> {
    let Some(body) = args.callback("body") else { return Ok(Value::Unit) };
    let mut bodies = tokio::task::JoinSet::new();
    for _ in 0..1000 {
        let (body, ctx) = (body.clone(), ctx.clone());
        bodies.spawn(async move { body.0.call(&ctx, Vec::new()).await });
    }
    while let Some(done) = bodies.join_next().await {
        done.unwrap()?;
    }
    Ok(Value::Unit)
}

async fn run(host: HostBuilder, file: &str, text: &str) -> sandscript::api::Result<Value> {
    lang::run(&Source::new(file, text), &host.build().unwrap()).await.result
}

/// The number that a script gives, in seconds.
async fn seconds(file: &str, text: &str) -> Duration {
    match run(host(), file, text).await.unwrap() {
        Value::Float(seconds) => Duration::from_secs_f64(seconds),
        other => panic!("{other}"),
    }
}

/// From the call of the library to the script's first line.
async fn first_line(file: &str, text: &str) -> Duration {
    let printed = Arc::new(Mutex::new(None));
    let sink = Arc::clone(&printed);
    let host = host().print(move |_| *sink.lock().unwrap() = Some(Instant::now()));
    let start = Instant::now();
    run(host, file, text).await.unwrap();
    let printed = printed.lock().unwrap().take().unwrap();
    printed - start
}

/// From the deadline to the end of the run.
async fn end(file: &str, text: &str) -> Duration {
    const LIMIT: Duration = Duration::from_millis(50);
    let start = Instant::now();
    let error = run(host().timeout(LIMIT), file, text).await.unwrap_err();
    assert!(matches!(error.kind, ErrorKind::Timeout), "{error}");
    start.elapsed().saturating_sub(LIMIT)
}

/// All of them.
pub async fn languages(table: &mut Table) {
    const CALLS: u32 = 100_000;
    let call_lua = format!("local t = now() for i = 1, {CALLS} do nothing() end return now() - t");
    let call_rhai = format!("let t = now(); for i in 0..{CALLS} {{ nothing(); }} now() - t");
    let loops = [
        (
            "Lua",
            "x.lua",
            "print('x')",
            &call_lua,
            "while true do pcall(function() while true do end end) end",
            2,
        ),
        ("Rhai", "x.rhai", "print(\"x\");", &call_rhai, "loop { try { loop { } } catch { } }", 4),
    ];
    for (name, file, print, calls, endless, goal) in loops {
        let (mut ready, mut call, mut ends) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..15 {
            ready.push(first_line(file, print).await);
            call.push(seconds(file, calls).await);
            ends.push(end(file, endless).await);
        }
        table.row(format!("{name}: ready to run the first line"), ms(median(ready)), "", "≤ 5 ms");
        let each = median(call).as_secs_f64() * 1e6 / f64::from(CALLS);
        let goal = format!("≤ {goal} µs");
        table.row(
            format!("{name}: a host call that does nothing"),
            format!("{each:.2} µs"),
            "",
            goal,
        );
        table.row(
            format!("{name}: from the deadline to the end of a script that catches everything"),
            ms(median(ends)),
            "",
            "≤ 20 ms",
        );
    }
    let text = "local t = now() thousand(function() sleep(0.1) end) return now() - t";
    let mut times = Vec::new();
    for _ in 0..7 {
        times.push(seconds("x.lua", text).await);
    }
    table.row("Lua: 1000 bodies that wait 100 ms each", ms(median(times)), "", "≤ 130 ms");
}
