//! Debian's packages without installing them: apt with its own state and cache folders, so that
//! it needs no rights and leaves the system as it is. Which servers it asks is the system's own
//! configuration (`/etc/apt`). What the packages are for is the caller's business.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::program;

/// A private apt in a folder of its own.
pub(crate) struct Apt {
    config: PathBuf,
    downloads: PathBuf,
    /// What the update complained of: it matters only if a package is not found afterwards.
    complaint: Option<String>,
}

/// A package as Debian's lists describe it.
pub(crate) struct Package {
    pub(crate) version: String,
    pub(crate) depends: Vec<String>,
}

impl Apt {
    /// Whether this machine has the tools.
    pub(crate) fn is_available() -> bool {
        ["apt-get", "apt-cache", "dpkg"]
            .iter()
            .all(|tool| program::exists(tool))
    }

    /// Makes one in `dir` and fetches the package lists, about 20 MB.
    ///
    /// # Errors
    /// The folder cannot be written. A server that does not answer is no error yet: the lists
    /// of another may have what is wanted.
    pub(crate) fn update_in(dir: &Path) -> Result<Self> {
        let downloads = dir.join("archives");
        for made in ["lists/partial", "cache/archives/partial", "archives"] {
            fs::create_dir_all(dir.join(made)).context("make apt's folders")?;
        }
        let config = dir.join("apt.conf");
        let dir = dir.to_str().context("apt's folder is not UTF-8")?;
        fs::write(&config, configuration(dir)).context("write apt's configuration")?;
        let mut apt = Self {
            config,
            downloads,
            complaint: None,
        };
        if let Err(error) = program::quiet(apt.command("apt-get").arg("update")) {
            apt.complaint = Some(format!("{error:#}"));
        }
        Ok(apt)
    }

    /// The candidate version of a package.
    ///
    /// # Errors
    /// No list has it; the message says what `apt-get update` complained of, if it did.
    pub(crate) fn candidate(&self, package: &str) -> Result<Package> {
        let mut show = self.command("apt-cache");
        show.args(["show", "--no-all-versions", package]);
        let Ok(text) = program::quiet(&mut show) else {
            match &self.complaint {
                Some(complaint) => bail!("find Debian's package {package}: {complaint}"),
                None => bail!("find Debian's package {package}: no list in /etc/apt has it"),
            }
        };
        parse(&text).with_context(|| format!("read what apt says of {package}"))
    }

    /// What of the given packages and their dependencies this system does not have.
    /// Empty also when apt finds no way to install them here, which need not be a hindrance.
    pub(crate) fn missing(&self, packages: &[String]) -> Vec<String> {
        let mut install = self.command("apt-get");
        install
            .args(["install", "--simulate", "--no-install-recommends"])
            .args(packages);
        let text = program::quiet(&mut install).unwrap_or_default();
        text.lines()
            .filter_map(|line| line.strip_prefix("Inst "))
            .filter_map(|rest| rest.split_whitespace().next())
            .map(str::to_owned)
            .collect()
    }

    /// Downloads packages (`name` or `name=version`) and unpacks them all below `root`.
    ///
    /// # Errors
    /// A download or an unpacking fails.
    pub(crate) fn unpack(&self, packages: &[String], root: &Path) -> Result<()> {
        let mut download = self.command("apt-get");
        download.current_dir(&self.downloads);
        program::quiet(download.arg("download").args(packages))?;
        let files = fs::read_dir(&self.downloads).context("list the downloaded packages")?;
        for file in files {
            let path = file?.path();
            if path.extension().is_some_and(|ending| ending == "deb") {
                program::quiet(Command::new("dpkg").arg("-x").arg(&path).arg(root))?;
                fs::remove_file(&path).context("remove an unpacked package")?;
            }
        }
        Ok(())
    }

    fn command(&self, tool: &str) -> Command {
        let mut command = Command::new(tool);
        command.arg("-c").arg(&self.config).env("LC_ALL", "C");
        command
    }
}

/// Folders of our own, no hooks of the system's, and short waits for servers.
fn configuration(dir: &str) -> String {
    format!(
        "Dir::State \"{dir}\";\n\
         Dir::State::lists \"{dir}/lists\";\n\
         Dir::State::status \"/var/lib/dpkg/status\";\n\
         Dir::Cache \"{dir}/cache\";\n\
         Dir::Cache::archives \"{dir}/cache/archives\";\n\
         #clear APT::Update::Pre-Invoke;\n\
         #clear APT::Update::Post-Invoke;\n\
         #clear APT::Update::Post-Invoke-Success;\n\
         APT::Sandbox::User \"root\";\n\
         Acquire::Languages \"none\";\n\
         Acquire::Retries \"2\";\n\
         Acquire::http::Timeout \"20\";\n\
         Acquire::https::Timeout \"20\";\n"
    )
}

/// Reads the first paragraph of `apt-cache show`.
fn parse(text: &str) -> Result<Package> {
    let field = |name: &str| {
        text.lines()
            .take_while(|line| !line.is_empty())
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
    };
    let version = field("Version").context("no version in it")?.to_owned();
    let depends = field("Depends")
        .unwrap_or_default()
        .split([',', '|'])
        .filter_map(|one| one.split_whitespace().next())
        .map(str::to_owned)
        .collect();
    Ok(Package { version, depends })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn version_and_dependencies_are_read_from_the_first_paragraph() {
        let text = "Package: x\nVersion: 1:2.3-4\nDepends: libc6 (>= 2.34), liba | libb\n\n\
                    Package: x\nVersion: 1:1.0-1\n";
        let package = parse(text).unwrap();
        assert_eq!(package.version, "1:2.3-4");
        assert_eq!(package.depends, ["libc6", "liba", "libb"]);
    }
}
