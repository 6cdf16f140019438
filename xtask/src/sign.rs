//! `sign`: signs packages for hosts that require it, and creates keys.
//!
//! A signature covers the bytes of `plugin.meta`, which hold the hash of each plugin. Invariant: a
//! signature is verified before it is written, as a host verifies it; one that is already valid stays.
//!
//! Absent on purpose: which keys are accepted, which the host's operator decides.

use std::{
    fs::{self, File, OpenOptions},
    io::{Cursor, Write as _},
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    time::{SystemTime, UNIX_EPOCH},
};

use anyhow::{Context as _, Result, bail, ensure};
use hotmerge_meta::{
    META_FILE, publish_signature,
    signature::{self, PublicKey, Signature},
    trust::shell_quoted,
};
use minisign::{KeyPair, SecretKey, SecretKeyBox};

use crate::{
    exit,
    output::{line, note},
};

/// Sign packages for hosts that require signatures
///
/// Writes the signature of each plugin.meta as plugin.meta.minisig beside it; minisign can verify it,
/// too. Put the public key into the host's keys directory (/etc/hotmerge/keys.d) as
/// NAME.pub.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = exit::HELP)]
pub struct Args {
    /// Packages, or staging directories with packages in them
    #[arg(value_name = "DIR", required_unless_present = "new_key")]
    dirs: Vec<PathBuf>,
    /// File of the secret key, created by --new-key or `minisign -G`
    #[arg(
        long,
        value_name = "FILE",
        env = "HOTMERGE_SIGN_KEY",
        required_unless_present = "new_key"
    )]
    key: Option<PathBuf>,
    /// File whose first line is the password of the secret key [default: ask on the terminal]
    #[arg(long, value_name = "FILE", env = "HOTMERGE_SIGN_PASSWORD_FILE")]
    password_file: Option<PathBuf>,
    /// Create a new key instead: FILE, and FILE.pub for the hosts
    #[arg(long, value_name = "FILE", conflicts_with_all = ["dirs", "key"])]
    new_key: Option<PathBuf>,
    /// Do not protect the new key with a password
    #[arg(long, requires = "new_key", conflicts_with = "password_file")]
    no_password: bool,
}

/// Runs the command.
///
/// # Errors
/// If the key cannot be used, or a package cannot be signed.
pub fn run(args: &Args) -> Result<u8> {
    if let Some(path) = &args.new_key {
        return new_key(path, args);
    }
    let path = args.key.as_deref().context("the key is required")?;
    let signer = Signer::read(path, args)?;
    let mut packages = Vec::new();
    for dir in &args.dirs {
        packages.extend(packages_of(dir)?);
    }
    for package in packages {
        let signed = signer.sign(&package);
        let is_new = signed.with_context(|| format!("failed to sign `{}`", package.display()))?;
        let what = if is_new {
            "signed"
        } else {
            "is already signed"
        };
        line(format_args!(
            "`{}` {what} by {}",
            package.display(),
            signer.public.id()
        ));
    }
    Ok(exit::OK)
}

/// A package itself, or all packages in a directory.
fn packages_of(dir: &Path) -> Result<Vec<PathBuf>> {
    let is_package = |dir: &Path| dir.join(META_FILE).is_file();
    if is_package(dir) {
        return Ok(vec![dir.to_owned()]);
    }
    let failed = || format!("failed to read `{}`", dir.display());
    let mut packages = Vec::new();
    for entry in fs::read_dir(dir).with_context(failed)? {
        let path = entry.with_context(failed)?.path();
        if is_package(&path) {
            packages.push(path);
        }
    }
    ensure!(
        !packages.is_empty(),
        "there is no `{META_FILE}` in `{}` or in a directory there",
        dir.display()
    );
    packages.sort();
    Ok(packages)
}

struct Signer {
    secret: SecretKey,
    public: PublicKey,
}

impl Signer {
    fn read(path: &Path, args: &Args) -> Result<Self> {
        let text = fs::read_to_string(path)
            .with_context(|| format!("failed to read the key `{}`", path.display()))?;
        let mode = fs::metadata(path).map_or(0, |it| it.mode());
        if mode & 0o077 != 0 {
            note(format_args!(
                "other users can read the secret key `{}`; run `chmod 600 {}`",
                path.display(),
                shell_quoted(path)
            ));
        }
        let secret = secret(&text, args)
            .with_context(|| format!("failed to use the key `{}`", path.display()))?;
        let public = minisign::PublicKey::from_secret_key(&secret)?.to_box()?;
        let public = PublicKey::parse(public.into_string().as_bytes())?;
        Ok(Self { secret, public })
    }

    /// Whether the package was not signed by this key before.
    fn sign(&self, package: &Path) -> Result<bool> {
        publish_signature(package, |meta, old| {
            let is_valid = |old: &Vec<u8>| {
                let old = Signature::parse(old);
                old.is_ok_and(|old| self.public.verify(meta, &old).is_ok())
            };
            match old.filter(is_valid) {
                Some(old) => Ok(old),
                None => self.signature(meta),
            }
        })
    }

    fn signature(&self, meta: &[u8]) -> Result<Vec<u8>> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let now = now.context("this machine's clock shows a time before 1970; set it, since hosts compare the times of signatures")?;
        let now = now.as_secs();
        let comment = signature::comment(now, META_FILE);
        let by = format!("signature by hotmerge's key {}", self.public.id());
        let made = minisign::sign(
            None,
            &self.secret,
            Cursor::new(meta),
            Some(&comment),
            Some(&by),
        );
        let bytes = made?.into_string().into_bytes();
        self.public.verify(meta, &Signature::parse(&bytes)?)?;
        Ok(bytes)
    }
}

fn secret(text: &str, args: &Args) -> Result<SecretKey> {
    let boxed = || SecretKeyBox::from_string(text);
    // A key without a password needs none.
    if let Ok(secret) = boxed()?.into_unencrypted_secret_key() {
        return Ok(secret);
    }
    let password = password(args)?;
    let is_asked = password.is_none();
    let secret = boxed()?.into_secret_key(password);
    match is_asked {
        true => secret.context("it is not a minisign secret key, or it is encrypted: enter its password, or pass `--password-file`"),
        false => secret.context("it is not a minisign secret key, or the password is wrong"),
    }
}

fn password(args: &Args) -> Result<Option<String>> {
    let Some(path) = &args.password_file else {
        return Ok(None);
    };
    let text = fs::read_to_string(path)
        .with_context(|| format!("failed to read the password file `{}`", path.display()))?;
    match text.lines().next() {
        Some(password) if !password.is_empty() => Ok(Some(password.to_owned())),
        _ => bail!(
            "the first line of the password file `{}` is empty",
            path.display()
        ),
    }
}

fn new_key(path: &Path, args: &Args) -> Result<u8> {
    let public = path.with_added_extension("pub");
    // Neither file is ever replaced: earlier signatures could no longer be verified.
    let mut files = [
        (path, create(path, 0o600)?),
        (&*public, create(&public, 0o644)?),
    ];
    let written = generate(args).and_then(|pair| {
        let texts = [
            pair.sk.to_box(Some("hotmerge's secret key"))?.into_string(),
            pair.pk.to_box()?.into_string(),
        ];
        for ((path, file), text) in files.iter_mut().zip(texts) {
            file.write_all(text.as_bytes())
                .and_then(|()| file.sync_all())
                .with_context(|| format!("failed to write `{}`", path.display()))?;
        }
        Ok(())
    });
    if written.is_err() {
        for (path, _) in &files {
            // Report the first error.
            let _ = fs::remove_file(path);
        }
    }
    written?;
    line(format_args!(
        "created the secret key `{}`, and `{}` for the keys directory of hosts",
        path.display(),
        public.display()
    ));
    Ok(exit::OK)
}

fn generate(args: &Args) -> Result<KeyPair> {
    if args.no_password {
        return Ok(KeyPair::generate_unencrypted_keypair()?);
    }
    let pair = KeyPair::generate_encrypted_keypair(password(args)?);
    pair.context("a key needs a password: enter it, or pass `--password-file` or `--no-password`")
}

fn create(path: &Path, mode: u32) -> Result<File> {
    let mut options = OpenOptions::new();
    let file = options.write(true).create_new(true).mode(mode).open(path);
    file.with_context(|| format!("failed to create `{}`", path.display()))
}
