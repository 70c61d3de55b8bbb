//! `shardmill top`: mappings and their shards, live, on the whole screen; or once, as text.
//!
//! The model and the drawing are pure; this file owns the terminal, the clock and the host.

mod draw;
mod model;
#[cfg(test)]
mod tests;

use std::io::{IsTerminal, Write};
use std::time::Duration;

use anyhow::bail;
use ratatui::DefaultTerminal;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use serde_json::{Value, json};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};

use self::model::{Command, Order, Top};
use super::client::{CallError, Client};
use super::{Connection, print};
use crate::clock::Clock;

/// Between two refreshes.
const REFRESH: Duration = Duration::from_secs(1);
/// How long an answer is waited for before it is asked for again.
const PATIENCE: Duration = Duration::from_secs(5);
/// Between two looks at the keyboard.
const KEYS: Duration = Duration::from_millis(50);
/// The width of what is printed where there is no terminal.
const PLAIN_WIDTH: u16 = 80;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Print the table once, with the rates of one second, and end
    #[arg(long)]
    once: bool,
    /// Show the shards of every mapping
    #[arg(long)]
    shards: bool,
    #[command(flatten)]
    connection: Connection,
}

pub(super) async fn run(arguments: Arguments) -> anyhow::Result<()> {
    let client = arguments.connection.client()?.answering_within(PATIENCE);
    let mut top = Top::new(&arguments.connection.endpoint);
    let clock = Clock::system();
    if arguments.once || arguments.connection.json {
        top.update(&client.get("mappings").await?, clock.now().0);
        sleep(REFRESH).await;
        top.update(&client.get("mappings").await?, clock.now().0);
        if arguments.shards || arguments.connection.json {
            top.expand_all();
        }
        if arguments.connection.json {
            return print::line(json!({ "rows": top.shown() }));
        }
        return print::line(draw::text(&top, width()));
    }
    if !std::io::stdout().is_terminal() {
        bail!("top: standard output is no terminal: --once prints the table as text");
    }
    top.update(&client.get("mappings").await?, clock.now().0);
    if arguments.shards {
        top.expand_all();
    }
    let mut screen = Screen::enter()?;
    look(&mut screen.0, &client, &mut top, clock).await
}

/// The terminal's width, or that of plain text.
fn width() -> u16 {
    match std::io::stdout().is_terminal() {
        true => ratatui::crossterm::terminal::size().map_or(PLAIN_WIDTH, |(width, _)| width),
        false => PLAIN_WIDTH,
    }
}

/// The whole screen; given back however the command ends, panics included.
struct Screen(DefaultTerminal);

impl Screen {
    fn enter() -> anyhow::Result<Self> {
        Ok(Self(ratatui::try_init()?))
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        ratatui::restore();
        let _ = std::io::stdout().flush();
    }
}

/// Draws, refreshes and obeys until it is told to end.
async fn look(
    terminal: &mut DefaultTerminal,
    client: &Client,
    top: &mut Top,
    clock: Clock,
) -> anyhow::Result<()> {
    let mut keys = interval(KEYS);
    keys.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let mut fetching = None;
    let mut next = Instant::now() + REFRESH;
    let mut signals = signals()?;
    terminal.draw(|frame| draw::draw(frame, top))?;
    loop {
        let mut changed = false;
        tokio::select! {
            biased;
            () = signals.stopped() => return Ok(()),
            _ = keys.tick() => {
                while event::poll(Duration::ZERO)? {
                    changed = true;
                    if let Some(command) = command(&event::read()?)
                        && !top.obey(command)
                    {
                        return Ok(());
                    }
                }
                if fetching.is_none() && !top.paused && Instant::now() >= next {
                    next = Instant::now() + REFRESH;
                    fetching = Some(Box::pin(client.get("mappings")));
                }
                changed |= top.tick(clock.now().0);
            }
            answer = fetched(&mut fetching) => {
                fetching = None;
                changed = true;
                take(top, answer, clock);
            }
        }
        if changed {
            terminal.draw(|frame| draw::draw(frame, top))?;
        }
    }
}

/// The answer, when one is asked for.
async fn fetched<F>(fetching: &mut Option<F>) -> Result<Value, CallError>
where
    F: Future<Output = Result<Value, CallError>> + Unpin,
{
    match fetching {
        Some(answer) => answer.await,
        None => std::future::pending().await,
    }
}

/// A host that does not answer is shown, and asked again.
fn take(top: &mut Top, answer: Result<Value, CallError>, clock: Clock) {
    match answer {
        Ok(answer) => top.update(&answer, clock.now().0),
        Err(error) => top.trouble = Some(error.to_string()),
    }
}

/// SIGTERM and SIGHUP; Ctrl-C comes as a key.
struct Signals {
    terminate: tokio::signal::unix::Signal,
    hang_up: tokio::signal::unix::Signal,
}

fn signals() -> anyhow::Result<Signals> {
    use tokio::signal::unix::{SignalKind, signal};
    Ok(Signals {
        terminate: signal(SignalKind::terminate())?,
        hang_up: signal(SignalKind::hangup())?,
    })
}

impl Signals {
    async fn stopped(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.hang_up.recv() => {}
        }
    }
}

/// What a key means.
fn command(event: &Event) -> Option<Command> {
    let Event::Key(KeyEvent {
        code,
        modifiers,
        kind: KeyEventKind::Press | KeyEventKind::Repeat,
        ..
    }) = event
    else {
        return None;
    };
    Some(match code {
        KeyCode::Char('c') if modifiers.contains(KeyModifiers::CONTROL) => Command::Quit,
        KeyCode::Char('q') | KeyCode::Esc => Command::Quit,
        KeyCode::Up | KeyCode::Char('k') => Command::Up,
        KeyCode::Down | KeyCode::Char('j') => Command::Down,
        KeyCode::Enter => Command::Expand,
        KeyCode::Char('p' | ' ') => Command::Pause,
        KeyCode::Char(key) => {
            let (_, order, _) = Order::ALL.iter().find(|(of, _, _)| of == key)?;
            Command::Sort(*order)
        }
        _ => return None,
    })
}
