//! What a medium says of itself. It is parsed into names that are names and digests that are digests, and nothing deeper looks again.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::catalog::bundle::BundleError;
use crate::image::config::ImageConfig;
use crate::image::digest::Digest;
use crate::image::manifest::harmless;
use crate::image::reference::Reference;
use crate::kernel::record::is_kernel_name;

/// The schema that this banger writes, and the newest that it reads.
pub const SCHEMA: u64 = 1;
/// The longest manifest, in bytes.
pub const MAX_MANIFEST: u64 = 1 << 20;
/// The most that a member's length can be, in bytes: no file system has longer files (ext4: 16 TiB).
const MAX_SIZE: u64 = 16 << 40;
/// The most images, kernels and programs together; their files are read one after the other.
const MAX_THINGS: usize = 1000;
/// The longest text for people, in characters.
const MAX_TEXT: usize = 4096;

/// What a file is: as many bytes, of this blake3 in hexadecimal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Content {
    pub size: u64,
    pub blake3: String,
}

/// A member behind the manifest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    pub name: String,
    pub content: Content,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manifest {
    /// The machine that it is for: `amd64`, `arm64`.
    pub arch: String,
    pub banger: Own,
    pub programs: Vec<Program>,
    pub kernels: Vec<Kernel>,
    pub images: Vec<Image>,
}

/// The executable that made the medium.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Own {
    pub version: String,
    pub commit: String,
    pub content: Content,
}

/// `firecracker` or `jailer`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Program {
    pub name: String,
    pub version: String,
    pub content: Content,
}

/// As the store's record of it, but for when it was imported.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kernel {
    pub name: String,
    pub version: String,
    pub source: String,
    pub snapshot: bool,
    /// sha256 of the catalog's bundle that it came in.
    pub bundle: Option<String>,
    pub vmlinux: Content,
    pub modules_cpio: Content,
    /// Its module tree, if it has one.
    pub modules: Option<Content>,
}

/// As the store's record of it, but for when it was made. Its id is its content's blake3.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    pub names: Vec<String>,
    pub digest: Option<String>,
    pub source: String,
    pub arch: String,
    pub variant: Option<String>,
    pub config: ImageConfig,
    pub kernel: Option<String>,
    pub content: Content,
}

impl Manifest {
    /// The members behind the manifest, in their order.
    pub fn parts(&self) -> Vec<Part> {
        let mut parts = vec![part(BANGER.to_owned(), &self.banger.content)];
        parts.extend(self.programs.iter().map(|p| part(p.member(), &p.content)));
        for kernel in &self.kernels {
            parts.extend(
                kernel.files().map(|(file, content)| part(kernel_member(&kernel.name, file), content)),
            );
        }
        parts.extend(self.images.iter().map(|i| part(image_member(&i.content), &i.content)));
        parts
    }
}

impl Kernel {
    /// Its files, by their names in its directory.
    pub fn files(&self) -> impl Iterator<Item = (&'static str, &Content)> {
        let always = [(VMLINUX, &self.vmlinux), (MODULES_CPIO, &self.modules_cpio)];
        always.into_iter().chain(self.modules.as_ref().map(|content| (MODULES_EXT4, content)))
    }
}

impl Program {
    fn member(&self) -> String {
        format!("programs/{}", self.name)
    }
}

impl Image {
    /// What people call it.
    pub fn call(&self) -> &str {
        self.names.first().map_or_else(|| self.content.blake3.get(..12).unwrap_or_default(), String::as_str)
    }
}

const BANGER: &str = "banger";
const VMLINUX: &str = "vmlinux";
const MODULES_CPIO: &str = "modules.cpio";
const MODULES_EXT4: &str = "modules.ext4";
/// What there may be of programs.
pub const PROGRAMS: [&str; 2] = ["firecracker", "jailer"];

fn kernel_member(kernel: &str, file: &str) -> String {
    format!("kernels/{kernel}/{file}")
}

fn image_member(content: &Content) -> String {
    format!("images/{}.ext4", content.blake3)
}

fn part(name: String, content: &Content) -> Part {
    Part { name, content: content.clone() }
}

#[derive(Serialize, Deserialize)]
struct Raw {
    schema_version: u64,
    arch: String,
    banger: RawOwn,
    #[serde(default)]
    programs: Vec<RawProgram>,
    #[serde(default)]
    kernels: Vec<RawKernel>,
    #[serde(default)]
    images: Vec<RawImage>,
}

#[derive(Serialize, Deserialize)]
struct RawFile {
    name: String,
    size: u64,
    blake3: String,
}

#[derive(Serialize, Deserialize)]
struct RawOwn {
    version: String,
    commit: String,
    file: RawFile,
}

#[derive(Serialize, Deserialize)]
struct RawProgram {
    name: String,
    version: String,
    file: RawFile,
}

#[derive(Serialize, Deserialize)]
struct RawKernel {
    name: String,
    version: String,
    source: String,
    snapshot: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    bundle: Option<String>,
    files: Vec<RawFile>,
}

#[derive(Serialize, Deserialize)]
struct RawImage {
    names: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    digest: Option<String>,
    source: String,
    arch: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    variant: Option<String>,
    config: ImageConfig,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    kernel: Option<String>,
    file: RawFile,
}

/// Why a manifest is none, as a clause.
type Bad = String;

impl Manifest {
    /// # Errors
    /// [`BundleError::Manifest`], which says what is wrong, also for a schema that is newer than this banger.
    pub fn parse(bytes: &[u8]) -> Result<Self, BundleError> {
        read(bytes).map_err(BundleError::Manifest)
    }

    /// The bytes of manifest.json.
    pub fn to_bytes(&self) -> Result<Vec<u8>, serde_json::Error> {
        let raw = Raw {
            schema_version: SCHEMA,
            arch: self.arch.clone(),
            banger: RawOwn {
                version: self.banger.version.clone(),
                commit: self.banger.commit.clone(),
                file: file(BANGER.to_owned(), &self.banger.content),
            },
            programs: self.programs.iter().map(Program::to_raw).collect(),
            kernels: self.kernels.iter().map(Kernel::to_raw).collect(),
            images: self.images.iter().map(Image::to_raw).collect(),
        };
        let mut bytes = serde_json::to_vec_pretty(&raw)?;
        bytes.push(b'\n');
        Ok(bytes)
    }
}

fn read(bytes: &[u8]) -> Result<Manifest, Bad> {
    #[derive(Deserialize)]
    struct Versioned {
        schema_version: Option<u64>,
    }
    let not_json =
        |e: serde_json::Error| format!("it is not JSON as a bundle has it: {}", harmless(&e.to_string()));
    match serde_json::from_slice::<Versioned>(bytes).map_err(not_json)?.schema_version {
        Some(SCHEMA) => {}
        Some(newer) if newer > SCHEMA => {
            return Err(format!(
                "it is of schema {newer}, and this banger knows bundles up to schema {SCHEMA}; install it with the banger that is in \
                 it, which `tar --zstd -xf FILE banger` takes out"
            ));
        }
        Some(_) | None => {
            return Err(format!(
                "it does not say that it is of schema {SCHEMA}; `banger bundle create` makes what can be installed"
            ));
        }
    }
    let raw: Raw = serde_json::from_slice(bytes).map_err(not_json)?;
    let things = raw.programs.len() + raw.kernels.len() + raw.images.len();
    if things > MAX_THINGS {
        return Err(format!("it has more than {MAX_THINGS} images, kernels and programs"));
    }
    let manifest = Manifest {
        arch: word("arch", raw.arch)?,
        banger: Own {
            version: text("version", raw.banger.version)?,
            commit: text("commit", raw.banger.commit)?,
            content: content(raw.banger.file, |_| BANGER.to_owned())?,
        },
        programs: raw.programs.into_iter().map(Program::of_raw).collect::<Result<_, _>>()?,
        kernels: raw.kernels.into_iter().map(Kernel::of_raw).collect::<Result<_, _>>()?,
        images: raw.images.into_iter().map(Image::of_raw).collect::<Result<_, _>>()?,
    };
    unique("the program", manifest.programs.iter().map(|p| p.name.as_str()))?;
    unique("the kernel", manifest.kernels.iter().map(|k| k.name.as_str()))?;
    unique("the file of image", manifest.images.iter().map(|i| i.content.blake3.as_str()))?;
    unique("the image's name", manifest.images.iter().flat_map(|i| i.names.iter().map(String::as_str)))?;
    Ok(manifest)
}

impl Program {
    fn of_raw(raw: RawProgram) -> Result<Self, Bad> {
        if !PROGRAMS.contains(&raw.name.as_str()) {
            return Err(format!("{:?} is no program that banger runs", harmless(&raw.name)));
        }
        let member = format!("programs/{}", raw.name);
        Ok(Self {
            content: content(raw.file, |_| member)?,
            version: text("version", raw.version)?,
            name: raw.name,
        })
    }

    fn to_raw(&self) -> RawProgram {
        let file = file(self.member(), &self.content);
        RawProgram { name: self.name.clone(), version: self.version.clone(), file }
    }
}

impl Kernel {
    fn of_raw(raw: RawKernel) -> Result<Self, Bad> {
        let name = kernel_name(raw.name)?;
        let mut files = raw.files.into_iter();
        let mut next = |wanted: &str| match files.next() {
            Some(file) => content(file, |_| kernel_member(&name, wanted)).map(Some),
            None => Ok(None),
        };
        let missing = |file: &str| format!("the kernel {name} has no {file}");
        let (vmlinux, modules_cpio, modules) = (next(VMLINUX)?, next(MODULES_CPIO)?, next(MODULES_EXT4)?);
        if files.next().is_some() {
            return Err(format!("the kernel {name} has more files than a kernel has"));
        }
        Ok(Self {
            vmlinux: vmlinux.ok_or_else(|| missing(VMLINUX))?,
            modules_cpio: modules_cpio.ok_or_else(|| missing(MODULES_CPIO))?,
            modules,
            version: kernel_name(raw.version)?,
            source: text("source", raw.source)?,
            snapshot: raw.snapshot,
            bundle: raw.bundle.map(hexadecimal).transpose()?,
            name,
        })
    }

    fn to_raw(&self) -> RawKernel {
        RawKernel {
            name: self.name.clone(),
            version: self.version.clone(),
            source: self.source.clone(),
            snapshot: self.snapshot,
            bundle: self.bundle.clone(),
            files: self.files().map(|(f, content)| file(kernel_member(&self.name, f), content)).collect(),
        }
    }
}

impl Image {
    fn of_raw(raw: RawImage) -> Result<Self, Bad> {
        let digest = |text: String| match text.parse::<Digest>() {
            Ok(_) => Ok(text),
            Err(_) => Err(format!("{:?} is no digest", harmless(&text))),
        };
        Ok(Self {
            names: raw.names.into_iter().map(image_name).collect::<Result<_, _>>()?,
            digest: raw.digest.map(digest).transpose()?,
            source: text("source", raw.source)?,
            arch: word("arch", raw.arch)?,
            variant: raw.variant.map(|variant| word("variant", variant)).transpose()?,
            config: raw.config,
            kernel: raw.kernel.map(kernel_name).transpose()?,
            content: content(raw.file, image_member)?,
        })
    }

    fn to_raw(&self) -> RawImage {
        RawImage {
            names: self.names.clone(),
            digest: self.digest.clone(),
            source: self.source.clone(),
            arch: self.arch.clone(),
            variant: self.variant.clone(),
            config: self.config.clone(),
            kernel: self.kernel.clone(),
            file: file(image_member(&self.content), &self.content),
        }
    }
}

fn file(name: String, content: &Content) -> RawFile {
    RawFile { name, size: content.size, blake3: content.blake3.clone() }
}

/// What a file is, if it has the name that it must have.
fn content(raw: RawFile, member: impl FnOnce(&Content) -> String) -> Result<Content, Bad> {
    let content = Content { size: raw.size, blake3: hexadecimal(raw.blake3)? };
    let wanted = member(&content);
    if raw.name != wanted {
        return Err(format!("the file {wanted} is called {:?}", harmless(&raw.name)));
    }
    if content.size > MAX_SIZE {
        return Err(format!("the file {wanted} is longer than any file can be"));
    }
    Ok(content)
}

/// 256 bits.
fn hexadecimal(text: String) -> Result<String, Bad> {
    let plain = text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
    if text.len() == 64 && plain { Ok(text) } else { Err(format!("{:?} is no digest", harmless(&text))) }
}

fn image_name(name: String) -> Result<String, Bad> {
    match name.parse::<Reference>() {
        Ok(_) => Ok(name),
        Err(e) => Err(format!("{:?} cannot name an image: {e}", harmless(&name))),
    }
}

fn kernel_name(name: String) -> Result<String, Bad> {
    if is_kernel_name(&name) { Ok(name) } else { Err(format!("{:?} cannot name a kernel", harmless(&name))) }
}

fn word(field: &str, text: String) -> Result<String, Bad> {
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"._-".contains(&b);
    if (1..=32).contains(&text.len()) && text.bytes().all(plain) {
        return Ok(text);
    }
    Err(format!("its {field}, {:?}, is not up to 32 lower-case letters, digits and . _ -", harmless(&text)))
}

/// A text for people, in one line.
fn text(field: &str, text: String) -> Result<String, Bad> {
    if text.chars().count() > MAX_TEXT || text.contains(char::is_control) {
        return Err(format!("its {field}, {:?}, is no line of text", harmless(&text)));
    }
    Ok(text)
}

fn unique<'a>(what: &str, names: impl Iterator<Item = &'a str>) -> Result<(), Bad> {
    let mut seen = BTreeSet::new();
    match names.into_iter().find(|name| !seen.insert(*name)) {
        Some(twice) => Err(format!("{what} {twice} is there twice")),
        None => Ok(()),
    }
}
