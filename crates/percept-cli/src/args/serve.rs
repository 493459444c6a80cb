//! Flags of `percept serve`.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use super::{EncodeArgs, path, positive};

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  percept serve
  percept serve --addr 8091
  percept serve --addr 0.0.0.0:80 --api-key-file keys.txt --allow-origin https://example.org

The page is at /, the description of the HTTP API at /docs. Whoever can reach the address can use
the service: beyond this machine, give it keys and put TLS before it.
Photos of all clients are encoded together, up to --batch-size of one size (8 unless given).")]
pub struct ServeArgs {
    /// Address to listen at; a port alone is one of this machine's own address, 127.0.0.1.
    #[arg(long, value_name = "[IP:]PORT", default_value = "127.0.0.1:8080", value_parser = address)]
    pub addr: SocketAddr,
    /// Threads that decode photos and make results, no more than there are cores; all cores unless given.
    #[arg(long, value_name = "N", value_parser = positive)]
    pub workers: Option<usize>,
    /// Requests that are worked on or wait at once; more are answered 429.
    #[arg(long, value_name = "N", default_value = "64", value_parser = positive)]
    pub queue: usize,
    /// Largest body of a request, such as 500kB, 20MB or 1GiB.
    #[arg(long, value_name = "SIZE", default_value = "20MB", value_parser = bytes)]
    pub max_upload: usize,
    /// Time for an upload to arrive, and again for its answer, such as 500ms, 30s or 2m.
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = duration)]
    pub timeout: Duration,
    /// Origin whose pages may call the service, such as https://example.org, or *; may be given
    /// several times.
    #[arg(long = "allow-origin", value_name = "ORIGIN", value_parser = origin)]
    pub allow_origins: Vec<String>,
    /// File of keys, one a line; every call under /v1 then needs one of them.
    #[arg(long, value_name = "FILE", value_parser = path())]
    pub api_key_file: Option<PathBuf>,
    #[command(flatten)]
    pub encode: EncodeArgs,
}

/// Where `serve` listens unless told.
const PORT: u16 = 8080;

/// `127.0.0.1:8091`, `8091`, `:8091`, `localhost:8091`, `0.0.0.0`, `[::1]:8091`, also as the beginning of a URL.
/// Without an address it is this machine's own: who wants to be reached says so.
fn address(text: &str) -> Result<SocketAddr, String> {
    let text = text.trim();
    let text = text.strip_prefix("http://").unwrap_or(text);
    let text = text.strip_suffix('/').unwrap_or(text);
    if text.starts_with("https://") {
        return Err("percept serves http; put a proxy with TLS before it".into());
    }
    if let Ok(address) = text.parse() {
        return Ok(address);
    }
    let wrong = || {
        format!(
            "not an address, such as 8091, 127.0.0.1:8091 or 0.0.0.0:{PORT}, and no name is looked up"
        )
    };
    let ip = |host: &str| -> Result<IpAddr, String> {
        match host.trim_start_matches('[').trim_end_matches(']') {
            "" => Ok(Ipv4Addr::LOCALHOST.into()),
            host if host.eq_ignore_ascii_case("localhost") => Ok(Ipv4Addr::LOCALHOST.into()),
            "*" => Err(format!(
                "for every address of this machine write 0.0.0.0:{PORT}"
            )),
            host => host.parse().map_err(|_| wrong()),
        }
    };
    let port = |port: &str| -> Result<u16, String> {
        if port.is_empty() || !port.bytes().all(|c| c.is_ascii_digit()) {
            return Err(wrong());
        }
        port.parse()
            .map_err(|_| format!("{port} is no port: the highest is {}", u16::MAX))
    };
    let (host, port) = match text.rsplit_once(':') {
        // An address of IPv6 has colons of its own.
        _ if text.parse::<IpAddr>().is_ok() => (ip(text)?, PORT),
        Some((host, number)) => (ip(host)?, port(number)?),
        None if text.bytes().all(|c| c.is_ascii_digit()) => (ip("")?, port(text)?),
        None => (ip(text)?, PORT),
    };
    Ok(SocketAddr::new(host, port))
}

/// A number and its unit; `None` where either is missing.
fn split(text: &str) -> Option<(u64, &str)> {
    let text = text.trim();
    let unit = text.find(|c: char| !c.is_ascii_digit())?;
    let (number, unit) = text.split_at_checked(unit)?;
    Some((number.parse().ok()?, unit.trim()))
}

fn bytes(text: &str) -> Result<usize, String> {
    let wrong = || "not a size, such as 500kB, 20MB or 1GiB".to_owned();
    let (number, unit) = split(text).ok_or_else(wrong)?;
    let factor: u64 = match unit {
        "B" => 1,
        "kB" | "KB" => 1_000,
        "MB" => 1_000_000,
        "GB" => 1_000_000_000,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        _ => return Err(wrong()),
    };
    // Below this no photo fits; above, numbers are slips of the keyboard.
    match number.checked_mul(factor) {
        Some(size @ 1_000..=2_000_000_000) => usize::try_from(size).map_err(|_| wrong()),
        _ => Err("not between 1kB and 2GB".into()),
    }
}

fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || "not a time, such as 500ms, 30s or 2m".to_owned();
    let (number, unit) = split(text).ok_or_else(wrong)?;
    let milliseconds = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" | "min" => 60_000,
        _ => return Err(wrong()),
    };
    match number.checked_mul(milliseconds) {
        Some(time @ 1..=3_600_000) => Ok(Duration::from_millis(time)),
        _ => Err("not between 1ms and 60m".into()),
    }
}

fn origin(text: &str) -> Result<String, String> {
    let is_origin = text.split_once("://").is_some_and(|(scheme, host)| {
        !scheme.is_empty() && !host.is_empty() && !host.contains(['/', '?', '#', ' '])
    });
    if text == "*" || is_origin && text.is_ascii() {
        return Ok(text.to_owned());
    }
    Err("not an origin, such as https://example.org (no path, no slash at the end)".into())
}

#[cfg(test)]
#[allow(clippy::panic, reason = "a test that fails says why")]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_understood_as_people_write_them() {
        for (text, expected) in [
            ("127.0.0.1:8091", "127.0.0.1:8091"),
            ("8091", "127.0.0.1:8091"),
            (":8091", "127.0.0.1:8091"),
            ("localhost:8091", "127.0.0.1:8091"),
            ("localhost", "127.0.0.1:8080"),
            ("http://localhost:8091/", "127.0.0.1:8091"),
            ("0.0.0.0", "0.0.0.0:8080"),
            ("0.0.0.0:80", "0.0.0.0:80"),
            ("::1", "[::1]:8080"),
            ("[::1]:8091", "[::1]:8091"),
            ("0", "127.0.0.1:0"),
        ] {
            let address = address(text).unwrap_or_else(|e| panic!("{text}: {e}"));
            assert_eq!(address.to_string(), expected, "{text}");
        }
        for wrong in [
            "",
            "99999",
            "-1",
            "+80",
            "*:80",
            "example.org:80",
            "1.2.3:80",
            "127.0.0.1:",
            "https://localhost",
        ] {
            assert!(address(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn sizes_times_and_origins_are_understood_or_refused() {
        assert_eq!(bytes("20MB"), Ok(20_000_000));
        assert_eq!(bytes("1 MiB"), Ok(1 << 20));
        assert_eq!(duration("30s"), Ok(Duration::from_secs(30)));
        assert_eq!(duration("2m"), Ok(Duration::from_secs(120)));
        for wrong in ["", "20", "MB", "-1MB", "0MB", "99GB", "20 parsecs"] {
            assert!(
                bytes(wrong).is_err() && duration(wrong).is_err(),
                "{wrong:?}"
            );
        }
        assert!(origin("https://example.org:8443").is_ok() && origin("*").is_ok());
        for wrong in ["example.org", "https://example.org/", "://", "null"] {
            assert!(origin(wrong).is_err(), "{wrong:?}");
        }
    }
}
