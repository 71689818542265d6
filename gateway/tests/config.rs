//! The configuration: the sample files work, and every mistake is reported where it stands.

use std::fs;
use std::net::UdpSocket;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use gateway::config::{self, Config, InnerSection};
use gateway::control::aaa::{Aaa, Outbox};
use gateway::control::responder::AuthKind;
use gateway::limits::Limits;

/// The least that works; tests replace or add lines. Line numbers of mistakes count from here.
const LEAST: &str = r#"[gateway]
identity = "gw.test"
[listen]
tcp = ["127.0.0.1:4500"]
[[pool]]
name = "default"
prefixes = ["10.64.0.0/16"]
[[profile]]
name = "lab"
auth = "psk"
secrets_file = "secrets.toml"
"#;

struct Dir(tempfile::TempDir);

impl Dir {
    fn new() -> Self {
        let dir = Self(tempfile::tempdir().expect("a directory"));
        dir.write("secrets.toml", "psk = \"interop-psk-0123456789\"\n");
        dir
    }

    fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.0.path().join(name);
        fs::write(&path, text).expect("written");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("mode set");
        path
    }

    fn load(&self, text: &str) -> Result<Config, Vec<String>> {
        let path = self.write("swugate.toml", text);
        config::load(&path).map_err(|errors| {
            let dir = format!("{}/", self.0.path().display());
            errors.iter().map(|error| error.to_string().replace(&dir, "")).collect()
        })
    }

    fn mistakes(&self, text: &str) -> Vec<String> {
        self.load(text).err().unwrap_or_default()
    }
}

fn ok(loaded: Result<Config, Vec<String>>) -> Config {
    loaded.unwrap_or_else(|mistakes| panic!("{}", mistakes.join("\n")))
}

#[test]
fn the_least_configuration_has_the_documented_defaults() {
    let config = ok(Dir::new().load(LEAST));
    assert_eq!(config.metrics, Some("127.0.0.1:9329".parse().expect("an address")));
    assert_eq!(
        (config.inner[0].device.as_str(), config.inner[0].mtu, config.inner[0].hairpin),
        ("swu0", 1400, false)
    );
    assert!(config.inner[0].offload && config.inner[0].queueing.flow_queue);
    let voice_late = config.inner[0].queueing.voice_late.expect("a bound");
    assert_eq!(voice_late.as_millis(), 200);
    let path_queue = config.inner[0].queueing.path_queue.expect("a bound");
    assert_eq!(path_queue.as_millis(), 3);
    assert_eq!(config.gateway.run_dir, Path::new("/run/swugate"));
    assert_eq!((config.gateway.workers, config.gateway.cores.len()), (None, 0));
    assert_eq!(config.limits, Limits::default());
    assert_eq!((config.debug.log.as_str(), config.debug.keylog), ("info", false));
    assert_eq!(config.warnings, [""; 0]);
    let ports: Vec<u16> = config.listen.udp.iter().map(|addr| addr.port()).collect();
    assert_eq!(ports, [500, 500, 4500, 4500], "IPv4 and IPv6");
    let profile = &config.responder.profiles[0];
    assert_eq!((profile.pool.as_str(), profile.replay_window, profile.dpd.as_secs()), ("default", 128, 60));
    assert_eq!((profile.rekey_ike.as_secs(), profile.rekey_child.as_secs()), (86_400, 14_400));
    assert_eq!((profile.local_ts.len(), profile.transports.len()), (2, 3));
    assert!(profile.idi.matches("anybody") && profile.idr.matches_absent());
    assert_eq!((profile.ike.len(), profile.esp.len()), (4, 3), "every built-in proposal parses");
}

/// The file that outside checks model theirs on: every key in it parses.
#[test]
fn a_configuration_with_every_known_section_works() {
    let dir = Dir::new();
    let config = ok(dir.load(include_str!("data/every-section.toml")));
    assert_eq!(config.listen.tcp.len(), 2);
    assert_eq!(config.limits.connections, 100_000);
    let AuthKind::Psk(keys) = &config.responder.profiles[0].auth else { panic!("not psk") };
    assert_eq!(keys.find("anybody").expect("a default").octets(), b"interop-psk-0123456789");
    let udp: Vec<String> = config.listen.udp.iter().map(ToString::to_string).collect();
    assert_eq!(udp, ["0.0.0.0:500", "0.0.0.0:4500"]);
    assert_eq!(config.warnings, [""; 0], "files of unused sections are not opened");
}

#[test]
fn the_sample_of_deploy_works() {
    let sample = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy");
    let dir = Dir::new();
    for name in ["swugate.toml", "secrets.toml"] {
        dir.write(name, &fs::read_to_string(sample.join(name)).expect("the sample"));
    }
    let config = ok(config::load(&dir.0.path().join("swugate.toml"))
        .map_err(|errors| errors.iter().map(ToString::to_string).collect()));
    assert_eq!(config.warnings, [""; 0]);
}

const NETWORKS: &str = r#"[gateway]
identity = "gw.test"
[[inner]]
name = "internet"
device = "swu0"
dns = ["10.1.1.1"]
[[inner]]
name = "ims"
device = "swu1"
netns = "ims"
mtu = 1280
offload_octets = 196608
[[pool]]
name = "internet"
prefixes = ["10.64.0.0/16"]
[[pool]]
name = "ims"
inner = "ims"
prefixes = ["10.64.0.0/16"]
[[profile]]
name = "ims"
inner = "ims"
match = { idr = "ims" }
auth = "psk"
secrets_file = "secrets.toml"
[[profile]]
name = "rest"
pool = "internet"
auth = "psk"
secrets_file = "secrets.toml"
"#;

#[test]
fn several_inner_networks_are_read_and_their_mistakes_are_told() {
    let dir = Dir::new();
    let config = ok(dir.load(NETWORKS));
    let seen: Vec<_> = config.inner.iter().map(|inner| (&*inner.name, &*inner.device, inner.mtu)).collect();
    assert_eq!(seen, [("internet", "swu0", 1400), ("ims", "swu1", 1280)]);
    assert_eq!(config.inner[1].netns.as_deref(), Some("ims"));
    let long: Vec<_> = config.inner.iter().map(InnerSection::super_packets).collect();
    assert_eq!(long, [Some(65_535), Some(196_608)]);
    let profiles = &config.responder.profiles;
    assert_eq!((profiles[0].network.0, &*profiles[0].pool), (1, "ims"), "its network has one pool");
    assert_eq!(profiles[1].network.0, 0);
    assert_eq!(config.responder.dns[0].len() + config.responder.dns[1].len(), 1);
    for (from, to, mistake) in [
        ("name = \"ims\"\ndevice", "device", "name = (missing): required in [[inner]]: a name of its own"),
        ("device = \"swu1\"\nnetns = \"ims\"", "device = \"swu0\"", "device = \"swu0\": a device of its own"),
        ("netns = \"ims\"", "netns = \"../ims\"", "netns = \"../ims\": the name of a network namespace"),
        ("inner = \"ims\"\nprefixes", "prefixes", "a range apart from 10.64.0.0/16"),
        (
            "inner = \"ims\"\nprefixes",
            "inner = \"mms\"\nprefixes",
            "the name of a table [[inner]]: internet, ims",
        ),
        (
            "inner = \"ims\"\nmatch",
            "inner = \"ims\"\npool = \"internet\"\nmatch",
            "[[pool]] of this [[inner]]: ims",
        ),
    ] {
        let mistakes = dir.mistakes(&NETWORKS.replace(from, to));
        assert!(mistakes.iter().any(|found| found.contains(mistake)), "{mistake}: {mistakes:?}");
    }
    // A reload may change what UEs are told, not which networks there are.
    let other = ok(dir.load(&NETWORKS.replace("10.1.1.1", "10.2.2.2")));
    assert!(other.has_networks_of(&config) && !other.needs_restart(&config).contains(&"inner"));
    let swapped = NETWORKS.replace("name = \"internet\"\ndevice", "name = \"other\"\ndevice");
    let swapped =
        swapped.replace("name = \"internet\"\nprefixes", "name = \"internet\"\ninner = \"other\"\nprefixes");
    assert!(!ok(dir.load(&swapped)).has_networks_of(&config));
}

const DIAMETER: &str = r#"
[[aaa]]
name = "home"
kind = "diameter"
servers = ["10.77.0.1:3868", "[fd00::1]:3868"]
"#;

/// What a Diameter back end has without being told, and where each mistake is found.
#[test]
fn diameter_back_ends_are_read_and_their_mistakes_are_told() {
    let dir = Dir::new();
    let with = |keys: &str| {
        let minimal = LEAST.replace("gw.test", "epdg.epc.mnc001.mcc001.3gppnetwork.org");
        format!("{minimal}{DIAMETER}{keys}")
    };
    let settings = |config: Config| match &config.aaa[0].kind {
        config::AaaKind::Diameter(settings) => settings.clone(),
        _ => panic!("not Diameter"),
    };
    let found = settings(ok(dir.load(&with(""))));
    assert_eq!(&*found.origin_host, "epdg.epc.mnc001.mcc001.3gppnetwork.org");
    assert_eq!(&*found.origin_realm, "epc.mnc001.mcc001.3gppnetwork.org");
    assert_eq!(found.destination_realm, None);
    assert_eq!((found.timeout.as_millis(), found.watchdog.as_secs()), (5_000, 30));
    assert!(found.tls.is_none() && found.servers.len() == 2);
    let all = "origin_host = \"a.b\"\norigin_realm = \"b.c\"\ndestination_realm = \"d.e\"\n\
               destination_host = \"f.d.e\"\nvisited_network = \"v.w\"\napplication = \"eap\"\n\
               server_hosts = [\"one.d.e\", \"two.d.e\"]\ntransport = \"tls\"\nca = \"none.pem\"\n\
               chain = \"none.pem\"\nkey = \"none.key\"\ntimeout_ms = 1000\nwatchdog_s = 6";
    let found = settings(ok(dir.load(&with(all))));
    assert_eq!(found.servers[1].host.as_deref(), Some("two.d.e"));
    let host = "a DiameterIdentity: a fully qualified domain name, such as \
                \"aaa.epc.mnc001.mcc001.3gppnetwork.org\"";
    for (keys, mistake) in [
        ("origin_host = \"a b\"", format!("origin_host = \"a b\": {host}")),
        (
            "server_hosts = [\"a.b\"]",
            "server_hosts = [\"a.b\"]: as many DiameterIdentities as there are servers, in \
                                     their order"
                .into(),
        ),
        ("application = \"swx\"", "application = \"swx\": swm or eap".into()),
        ("transport = \"sctp\"", "transport = \"sctp\": tcp or tls".into()),
        ("ca = \"ca.pem\"", "ca = \"ca.pem\": nothing without transport = \"tls\"".into()),
        ("watchdog_s = 5", "watchdog_s = 5: a number from 6 to 300 (seconds)".into()),
        ("timeout_ms = 1", "timeout_ms = 1: a number from 200 to 60000 (milliseconds)".into()),
    ] {
        let mistakes = dir.mistakes(&with(keys));
        assert_eq!(mistakes.len(), 1, "{mistakes:?}");
        assert!(mistakes[0].ends_with(&mistake), "{mistakes:?}");
    }
    let without = with("").replace("epdg.epc.mnc001.mcc001.3gppnetwork.org", "user@example.org");
    assert!(dir.mistakes(&without)[0].contains("origin_host = (missing): required in [[aaa]]"));
}

const RADIUS: &str = r#"
[[aaa]]
name = "home"
kind = "radius"
servers = ["10.77.0.1:1812", "[fd00::1]:1812"]
"#;

/// A directory with certificates and a shared secret.
fn with_radius_files() -> Dir {
    let dir = Dir::new();
    let pki = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/pki");
    for (name, from) in [("gw.pem", "gw-ec.pem"), ("gw.key", "gw-ec.key"), ("root.pem", "root.pem")] {
        dir.write(name, &fs::read_to_string(pki.join(from)).expect("the fixture"));
    }
    dir.write("radius.secret", "a shared secret of some length\n");
    dir
}

/// A profile that uses the back end.
fn radius(keys: &str) -> String {
    let psk = "auth = \"psk\"\nsecrets_file = \"secrets.toml\"\n";
    let certificate = "[certificate]\nchain = \"gw.pem\"\nkey = \"gw.key\"\nca = \"root.pem\"\n";
    let eap = LEAST.replace(psk, "auth = \"eap-radius\"\naaa = \"home\"\n");
    format!("{eap}{certificate}{RADIUS}{keys}")
}

/// A reload that asks for what cannot be had: the back end that runs goes on, sessions and all.
#[tokio::test]
async fn a_back_end_that_cannot_change_stays_as_it_was() {
    let dir = with_radius_files();
    let keys = "secret_file = \"radius.secret\"\naccounting = true\n";
    let (outbox, _answers) = Outbox::new();
    let mut aaa = Aaa::open(&ok(dir.load(&radius(keys))), outbox).expect("nothing to bind");
    let before = aaa.servers();
    assert_eq!(before.len(), 4, "two that let in, two that account");

    let taken = UdpSocket::bind("127.0.0.1:0").expect("a port");
    let listen = taken.local_addr().expect("bound");
    let changed = ok(dir.load(&radius(&format!("{keys}dynamic_authorization = \"{listen}\""))));
    let failure = aaa.reload(&changed).expect_err("somebody else has the port");
    assert!(failure.to_string().contains("[[aaa]] home: dynamic_authorization"), "{failure}");
    assert_eq!(aaa.servers(), before);
    drop(taken);
    aaa.reload(&changed).expect("now it is free");
}

/// Who has no SIM is left to the server of emergencies, and of nothing else.
#[test]
fn ts33402_13_a_server_is_asked_about_phones_without_a_sim_where_a_profile_says_so() {
    let dir = with_radius_files();
    let with = |keys: &str| {
        let text = radius("secret_file = \"radius.secret\"");
        text.replace("aaa = \"home\"", &format!("aaa = \"home\"\n{keys}"))
    };
    let asked = |config: Config| match &config.responder.profiles[0].auth {
        AuthKind::Eap(policy) => policy.imei,
        _ => panic!("not EAP"),
    };
    assert!(!asked(ok(dir.load(&with("emergency = true")))));
    assert!(asked(ok(dir.load(&with("emergency = true\nemergency_imei = true")))));
    let mistakes = dir.mistakes(&with("emergency_imei = true"));
    assert!(
        mistakes[0].starts_with("swugate.toml:12: emergency_imei = true: false, or true with"),
        "{mistakes:?}"
    );
}

/// What a RADIUS back end has without being told, and with everything told.
#[test]
fn radius_back_ends_are_read() {
    let dir = with_radius_files();
    let section = |config: &Config| match &config.aaa[0].kind {
        config::AaaKind::Radius(section) => section.clone(),
        _ => panic!("not RADIUS"),
    };
    let config = ok(dir.load(&radius("secret_file = \"radius.secret\"")));
    assert_eq!(config.warnings, [""; 0]);
    let found = section(&config).expect("a profile uses it");
    assert_eq!((found.servers.len(), found.accounting.len()), (2, 0));
    assert!(found.tls.is_none() && found.dynamic.is_none() && found.interim.is_none());
    assert_eq!((found.timeout.as_millis(), found.retries, found.outstanding), (1_000, 4, 8_192));
    assert_eq!((found.dead_after.as_secs(), found.revive_after.as_secs()), (4, 10));
    assert!(!format!("{found:?}").contains("shared"), "a secret is not shown");
    let all = "secret_file = \"radius.secret\"\naccounting = true\ninterim_s = 600\nnas_identifier = \"epdg\"\n\
               accounting_queue = 64\ntimeout_ms = 50\nretries = 0\ndead_after_ms = 100\nrevive_s = 1\n\
               status_server = false\noutstanding = 1\ndynamic_authorization = \"127.0.0.1:3799\"\n\
               dynamic_clients = [\"10.77.0.9\"]\nevent_timestamp = false";
    let found = section(&ok(dir.load(&radius(all)))).expect("a profile uses it");
    let ports: Vec<u16> = found.accounting.iter().map(|server| server.port()).collect();
    assert_eq!(ports, [1813, 1813]);
    let dynamic = found.dynamic.as_ref().expect("switched on");
    assert_eq!((dynamic.clients.len(), dynamic.needs_timestamp), (1, false));
    let tls = "transport = \"tls\"\nca = \"root.pem\"\nchain = \"gw.pem\"\nkey = \"gw.key\"\ntls_name = \"aaa.test\"";
    let found = section(&ok(dir.load(&radius(&format!("{tls}\naccounting = [\"10.77.0.2:2083\"]")))));
    assert_eq!(found.and_then(|found| found.tls.as_ref().map(Vec::len)), Some(3));
    // A back end that no profile uses: nothing of it is opened.
    let unused = format!("{LEAST}{RADIUS}secret_file = \"not there\"");
    assert!(section(&ok(dir.load(&unused))).is_none());
}

/// Where each mistake in a RADIUS back end is found, and what of it is a warning only.
#[test]
fn mistakes_of_radius_back_ends_are_told() {
    let dir = with_radius_files();
    let secret = "secret_file = \"radius.secret\"\n";
    for (keys, mistake) in [
        ("", "secret_file = (missing): required in [[aaa]]: the path of a file with one line"),
        ("secret_file = \"none\"", "secret_file = \"none\": the path of a file with one line"),
        ("accounting = 1813", "accounting = 1813: a list: true (the servers' addresses with port 1813"),
        ("accounting = []", "accounting = []: at least one of: true"),
        ("accounting = [\"a:1\"]", "accounting = \"a:1\": true"),
        (
            "accounting = [\"10.0.0.1:1\", \"10.0.0.1:1\"]",
            "accounting = \"10.0.0.1:1\": a port from 1 to 65535, and no",
        ),
        ("timeout_ms = 1", "timeout_ms = 1: a number from 50 to 30000 (milliseconds)"),
        ("retries = 11", "retries = 11: a number from 0 to 10 (repetitions)"),
        ("interim_s = 59", "interim_s = 59: a number from 60 to 86400 (seconds)"),
        ("outstanding = 0", "outstanding = 0: a number from 1 to 65536 (requests)"),
        ("nas_identifier = \"\"", "nas_identifier = \"\": a text of 1 to 253 octets"),
        ("dynamic_authorization = \"3799\"", "dynamic_authorization = \"3799\": address:port, such as"),
        ("dynamic_clients = [\"any\"]", "dynamic_clients = \"any\": IP addresses of servers"),
        ("transport = \"tcp\"", "transport = \"tcp\": \"udp\" or \"tls\""),
        ("ca = \"root.pem\"", "ca = \"root.pem\": nothing here without transport = \"tls\""),
        (
            "transport = \"tls\"\nca = \"root.pem\"\nchain = \"gw.pem\"",
            "key = (missing): required in [[aaa]]: ",
        ),
        (
            "transport = \"tls\"\nca = \"gw.key\"\nchain = \"gw.pem\"\nkey = \"gw.key\"",
            "ca = \"gw.key\": the path of a PEM file (no certificate in PEM form)",
        ),
        (
            "transport = \"tls\"\nca = \"root.pem\"\nchain = \"gw.pem\"\nkey = \"gw.key\"\ntls_name = \"a b\"",
            "tls_name = \"a b\": the servers' name in their certificates",
        ),
    ] {
        let keys = if keys.is_empty() || keys.contains("tls\"\n") || keys.contains("secret") {
            keys.to_owned()
        } else {
            format!("{secret}{keys}")
        };
        let mistakes = dir.mistakes(&radius(&keys));
        assert_eq!(mistakes.len(), 1, "{keys}: {mistakes:?}");
        assert!(mistakes[0].contains(mistake), "{mistake}: {mistakes:?}");
    }
    for bad in ["", "\n", "two\nlines\n", &"x".repeat(254)] {
        dir.write("bad.secret", bad);
        let mistakes = dir.mistakes(&radius("secret_file = \"bad.secret\""));
        assert!(mistakes[0].contains("bad.secret\": the path of a file with one line"), "{mistakes:?}");
    }
    let short = dir.write("short.secret", "testing123\n");
    fs::set_permissions(short, fs::Permissions::from_mode(0o644)).expect("mode set");
    let config = ok(dir.load(&radius("secret_file = \"short.secret\"")));
    assert_eq!(config.warnings.len(), 2, "{:?}", config.warnings);
    assert!(config.warnings[0].contains("mode 0644") && config.warnings[1].contains("less than 16 octets"));
}

/// A relay needs to know where to; whatever else is there for a responder is said to be of no use.
#[test]
fn a_relay_needs_a_backend_only() {
    let dir = Dir::new();
    let config = ok(dir.load("[relay]\nbackend = \"192.0.2.1:4500\"\n"));
    let relay = config.relay.expect("a relay");
    assert_eq!((relay.addr.to_string().as_str(), relay.ike), ("192.0.2.1:4500", None));
    assert_eq!(config.warnings, [""; 0]);
    let both = "[relay]\nbackend = \"[2001:db8::1]:4500\"\nbackend_ike = \"[2001:db8::1]:500\"\n\
                sources = [\"2001:db8::7\"]\n[[profile]]\nsecrets_file = \"not there\"\n";
    let config = ok(dir.load(both));
    assert_eq!(config.warnings, ["profile: not used by a relay; its files are not opened"]);
    let relay = config.relay.expect("a relay");
    assert_eq!(relay.ike.map(|ike| ike.port()), Some(500));
    assert_eq!(relay.sources.len(), 1);
    assert_eq!(
        dir.mistakes("[relay]\nsources = [\"here\"]\nback_end = 1\n"),
        [
            "swugate.toml:1: backend = (missing): required in [relay]: address:port, such as \"0.0.0.0:4500\" \
             or \"[::]:4500\"",
            "swugate.toml:2: sources = \"here\": IP addresses of this host, such as [\"192.0.2.7\"]",
            "swugate.toml:3: back_end = 1: unknown key in [relay]; known are backend, backend_ike, sources",
        ]
    );
}

/// The sample shows every limit with its default.
#[test]
fn the_sample_of_deploy_names_every_limit_with_its_default() {
    let sample = include_str!("../../deploy/swugate.toml");
    for bounds in Limits::TABLE {
        let line = format!("# {} = {}", bounds.name, bounds.default);
        let shown = sample.lines().any(|shown| shown == line || shown.starts_with(&format!("{line} ")));
        assert!(shown, "{line}");
    }
}

#[test]
fn mistakes_are_reported_where_they_stand() {
    const USERS: &str = "[[secret]]\nuser = \"alice\"\npassword = \"x\"\n";
    let dir = Dir::new();
    dir.write("users.toml", USERS);
    // (line of LEAST to replace, replacement, the whole report)
    let table: &[(&str, &str, &str)] = &[
        (
            "identity = \"gw.test\"",
            "identity = \"gw test\"",
            "swugate.toml:2: identity = \"gw test\": an FQDN, an IP address, user@fqdn or \"dn:O=…,CN=…\"",
        ),
        (
            "identity = \"gw.test\"",
            "",
            "swugate.toml:1: identity = (missing): required in [gateway]: \
             an FQDN, an IP address, user@fqdn or \"dn:O=…,CN=…\"",
        ),
        (
            "identity = \"gw.test\"",
            "identity = \"gw.test\"\ncolour = \"red\"",
            "swugate.toml:3: colour = \"red\": unknown key in [gateway]; \
             known are identity, user, workers, cores, run_dir, state_dir",
        ),
        (
            "identity = \"gw.test\"",
            "identity = \"gw.test\"\nworkers = \"many\"",
            "swugate.toml:3: workers = \"many\": \"auto\" or a number from 1 to 64",
        ),
        (
            "identity = \"gw.test\"",
            "identity = \"gw.test\"\nworkers = 65",
            "swugate.toml:3: workers = 65: \"auto\" or a number from 1 to 64",
        ),
        (
            "identity = \"gw.test\"",
            "identity = \"gw.test\"\nuser = \"nobody-of-this-name\"",
            "swugate.toml:3: user = \"nobody-of-this-name\": the name of an existing user",
        ),
        (
            "identity = \"gw.test\"",
            "identity = \"gw.test\"\ncores = [0, -1]",
            "swugate.toml:3: cores = -1: a number from 0 to 1023 (core number)",
        ),
        (
            "tcp = [\"127.0.0.1:4500\"]",
            "tcp = [\"127.0.0.1:4500\", \"127.0.0.1\"]",
            "swugate.toml:4: tcp = \"127.0.0.1\": address:port, such as \"0.0.0.0:4500\" or \"[::]:4500\"",
        ),
        (
            "tcp = [\"127.0.0.1:4500\"]",
            "tcp = [\"127.0.0.1:4500\", \"127.0.0.1:4500\"]",
            "swugate.toml:4: tcp = \"127.0.0.1:4500\": each address once",
        ),
        (
            "tcp = [\"127.0.0.1:4500\"]",
            "tcp = \"127.0.0.1:4500\"",
            "swugate.toml:4: tcp = \"127.0.0.1:4500\": \
             a list: address:port, such as \"0.0.0.0:4500\" or \"[::]:4500\"",
        ),
        (
            "tcp = [\"127.0.0.1:4500\"]",
            "tcp = []",
            "swugate.toml:4: tcp = []: at least one of: address:port, such as \"0.0.0.0:4500\" or \"[::]:4500\"",
        ),
        (
            "tcp = [\"127.0.0.1:4500\"]",
            "tcp = [\"127.0.0.1:4500\"]\nike_tcp = [\"127.0.0.1:4500\"]",
            "swugate.toml:5: ike_tcp = [\"127.0.0.1:4500\"]: \
             addresses other than those of tcp, whose stream has another form",
        ),
        (
            "tcp = [\"127.0.0.1:4500\"]",
            "tcp = [\"127.0.0.1:4500\"]\nudp = []\nike_tcp = [\"127.0.0.1:500\"]",
            "swugate.toml:6: ike_tcp = [\"127.0.0.1:500\"]: \
             an empty list while udp is empty: such peers have their ESP on UDP",
        ),
        (
            "tcp = [\"127.0.0.1:4500\"]",
            "tcp = [\"127.0.0.1:4500\"]\nike_tcp = [\"127.0.0.1:500\"]\nike_tcp_notify = 16430",
            "swugate.toml:6: ike_tcp_notify = 16430: a number from 40960 to 65535 (notify type)",
        ),
        (
            "tcp = [\"127.0.0.1:4500\"]",
            "tcp = [\"127.0.0.1:4500\"]\ntls = [\"127.0.0.1:443\"]",
            "swugate.toml:1: certificate = (missing): required: a table [certificate] or [tls] with chain and key, \
             for listen.tls, shared and ftt",
        ),
        (
            "tcp = [\"127.0.0.1:4500\"]",
            "shared = [\"127.0.0.1:4500\"]\ntcp = [\"127.0.0.1:4500\"]",
            "swugate.toml:5: tcp = \"127.0.0.1:4500\": each address once",
        ),
        (
            "prefixes = [\"10.64.0.0/16\"]",
            "prefixes = [\"10.64.0.0/16\", \"10.64.8.0/24\"]",
            "swugate.toml:7: prefixes = \"10.64.8.0/24\": a range apart from 10.64.0.0/16",
        ),
        (
            "prefixes = [\"10.64.0.0/16\"]",
            "prefixes = [\"0.0.0.0/0\"]",
            "swugate.toml:7: prefixes = \"0.0.0.0/0\": a prefix length from 8 to 30",
        ),
        (
            "prefixes = [\"10.64.0.0/16\"]",
            "prefixes = [\"fd64::/48\"]",
            "swugate.toml:7: prefixes = \"fd64::/48\": a prefix length from 64 to 126",
        ),
        (
            "prefixes = [\"10.64.0.0/16\"]",
            "prefixes = [\"10.64.0.0\"]",
            "swugate.toml:7: prefixes = \"10.64.0.0\": \
             address ranges, such as [\"10.64.0.0/16\", \"fd64::/112\"]",
        ),
        (
            "name = \"lab\"",
            "name = \"lab\"\npool = \"other\"",
            "swugate.toml:10: pool = \"other\": the name of a table [[pool]]: default",
        ),
        (
            "name = \"lab\"",
            "name = \"lab\"\naaa = \"main\"",
            "swugate.toml:10: aaa = \"main\": the name of a table [[aaa]], and there is none",
        ),
        (
            "auth = \"psk\"",
            "auth = \"eap-aka\"",
            "swugate.toml:11: secrets_file = \"secrets.toml\": the path of a file with [[secret]] entries of imsi, k and \
             opc, or aaa = \"…\"",
        ),
        (
            "auth = \"psk\"",
            "auth = \"eap-radius\"",
            "swugate.toml:8: aaa = (missing): required in [[profile]]: the name of an [[aaa]] that authenticates these UEs",
        ),
        (
            "auth = \"psk\"",
            "auth = \"psk\"\ndevice_identity = \"mac\"",
            "swugate.toml:11: device_identity = \"mac\": \"never\", \"imei\" or \"imeisv\"",
        ),
        (
            "auth = \"psk\"\nsecrets_file = \"secrets.toml\"",
            "auth = \"eap-mschapv2\"\nsecrets_file = \"users.toml\"\neap_only = true",
            "swugate.toml:12: eap_only = true: false: this method is not safe without a certificate (RFC 5998 §4)",
        ),
        (
            "auth = \"psk\"",
            "auth = \"psk\"\ns_nssai = \"0102\"",
            "swugate.toml:11: s_nssai = \"0102\": an S-NSSAI of 1, 4, 5 or 8 octets in hexadecimal",
        ),
        (
            "auth = \"psk\"",
            "auth = \"pks\"",
            "swugate.toml:10: auth = \"pks\": \"psk\", \"certificate\", \"eap-aka\", \"eap-aka-prime\", \"eap-mschapv2\", \
             \"eap-tls\", \"eap-radius\" or \"eap-diameter\"",
        ),
        (
            "auth = \"psk\"",
            "auth = \"certificate\"",
            "swugate.toml:1: certificate = (missing): required: a table [certificate] with chain, key and ca",
        ),
        (
            "secrets_file = \"secrets.toml\"",
            "",
            "swugate.toml:8: secrets_file = (missing): required in [[profile]]: \
             the path of a file with psk = \"…\" or [[secret]] entries",
        ),
        (
            "secrets_file = \"secrets.toml\"",
            "secrets_file = \"none.toml\"",
            "swugate.toml:11: secrets_file = \"none.toml\": the path of a file with psk = \"…\" or [[secret]] \
             entries (No such file or directory (os error 2))",
        ),
        (
            "name = \"lab\"",
            "name = \"lab\"\nike = [\"aes256-sha256\"]",
            "swugate.toml:10: ike = \"aes256-sha256\": no key exchange group; \
             add one of modp2048, modp3072, modp4096, ecp256, ecp384, ecp521, curve25519, x25519, \
             mlkem512, mlkem768, mlkem1024",
        ),
        (
            "name = \"lab\"",
            "name = \"lab\"\nesp = [\"des-md5\"]",
            "swugate.toml:10: esp = \"des-md5\": \"des\" is not allowed here; \
             allowed: aes128, aes192, aes256, aes128gcm16, aes256gcm16, chacha20poly1305, \
             sha1, sha256, sha384, sha512, modp2048, modp3072, modp4096, ecp256, ecp384, ecp521, \
             curve25519, x25519, ke1_… to ke7_… followed by one of these groups, an ML-KEM or none, esn, noesn; \
             for peers that have nothing better 3des, modp768, modp1024, modp1536",
        ),
        (
            "name = \"lab\"",
            "name = \"lab\"\nesp = []",
            "swugate.toml:10: esp = []: at least one of: \
             proposals in strongSwan's keywords, such as [\"aes256-sha256-modp2048\"]",
        ),
        (
            "name = \"lab\"",
            "name = \"lab\"\ntransports = [\"sctp\"]",
            "swugate.toml:10: transports = \"sctp\": a list of \"tcp\", \"udp\", \"tls\"",
        ),
        (
            "name = \"lab\"",
            "name = \"lab\"\nlocal_ts = [\"10.0.0.0-10.0.0.9\"]",
            "swugate.toml:10: local_ts = \"10.0.0.0-10.0.0.9\": \
             address ranges, such as [\"0.0.0.0/0\", \"::/0\"]",
        ),
        (
            "name = \"lab\"",
            "name = \"lab\"\nreplay_window = 16",
            "swugate.toml:10: replay_window = 16: a number from 32 to 4096 (packets)",
        ),
        (
            "name = \"lab\"",
            "name = \"lab\"\nmatch = { idi = \"*\", apn = \"ims\" }",
            "swugate.toml:10: apn = \"ims\": unknown key in [match]; known are idi, idr",
        ),
        (
            "secrets_file = \"secrets.toml\"",
            "secrets_file = \"secrets.toml\"\n[limits]\nconnections = 5",
            "swugate.toml:13: connections = 5: a number from 64 to 4000000 (connections)",
        ),
        (
            "secrets_file = \"secrets.toml\"",
            "secrets_file = \"secrets.toml\"\n[limits]\nconnections = \"many\"",
            "swugate.toml:13: connections = \"many\": a number from 64 to 4000000 (connections)",
        ),
        (
            "secrets_file = \"secrets.toml\"",
            "secrets_file = \"secrets.toml\"\n[inner]\nmtu = 1279",
            "swugate.toml:13: mtu = 1279: a number from 1280 to 9000 (octets)",
        ),
        (
            "secrets_file = \"secrets.toml\"",
            "secrets_file = \"secrets.toml\"\n[inner]\noffload_octets = 262145",
            "swugate.toml:13: offload_octets = 262145: a number from 65535 to 262144 (octets)",
        ),
        (
            "secrets_file = \"secrets.toml\"",
            "secrets_file = \"secrets.toml\"\n[inner]\ndevice = \"much-too-long-name\"",
            "swugate.toml:13: device = \"much-too-long-name\": \
             an interface name of 1 to 15 letters, digits, '-', '_' or '.'",
        ),
        (
            "secrets_file = \"secrets.toml\"",
            "secrets_file = \"secrets.toml\"\n[inner]\ndns = [\"dns.test\"]",
            "swugate.toml:13: dns = \"dns.test\": IP addresses, such as [\"10.64.0.1\"]",
        ),
        (
            "secrets_file = \"secrets.toml\"",
            "secrets_file = \"secrets.toml\"\n[metrics]\nlisten = \"localhost\"",
            "swugate.toml:13: listen = \"localhost\": \
             address:port, such as \"127.0.0.1:9329\", or \"\" for none",
        ),
        (
            "secrets_file = \"secrets.toml\"",
            "secrets_file = \"secrets.toml\"\n[store]\nkind = \"redis\"",
            "swugate.toml:13: kind = \"redis\": \"none\"; file and redis are not in this version",
        ),
        (
            "[[pool]]",
            "[inner]\nvoice_late_ms = 19\n[[pool]]",
            "swugate.toml:6: voice_late_ms = 19: 0 for never, or a number from 20 to 10000 (milliseconds)",
        ),
        (
            "secrets_file = \"secrets.toml\"",
            "secrets_file = \"secrets.toml\"\nemergency = true\nemergency_imei = true",
            "swugate.toml:13: emergency_imei = true: false, or true with emergency = true and \
             auth = \"eap-radius\" or \"eap-diameter\": a UE without a SIM proves nothing, so that only an AAA server \
             can let it in",
        ),
        (
            "[[pool]]",
            "[inner]\nunsent_octets = 4095\n[[pool]]",
            "swugate.toml:6: unsent_octets = 4095: a number from 4096 to 16777216 (octets)",
        ),
        (
            "[[pool]]",
            "[inner]\nunsent_octets = 16777217\n[[pool]]",
            "swugate.toml:6: unsent_octets = 16777217: a number from 4096 to 16777216 (octets)",
        ),
        (
            "[[pool]]",
            "[inner]\npath_queue_ms = 1001\n[[pool]]",
            "swugate.toml:6: path_queue_ms = 1001: a number from 0 to 1000 (milliseconds; 0 for no bound)",
        ),
        (
            "tcp = [\"127.0.0.1:4500\"]",
            "tcp = [\"127.0.0.1:4500\"]\nnodelay = 1",
            "swugate.toml:5: nodelay = 1: true or false",
        ),
        (
            "[[pool]]",
            "[inner]\nvoice_late_ms = 10001\n[[pool]]",
            "swugate.toml:6: voice_late_ms = 10001: 0 for never, or a number from 20 to 10000 (milliseconds)",
        ),
        (
            "secrets_file = \"secrets.toml\"",
            "secrets_file = \"secrets.toml\"\n[debug]\nlog = \"loud\"",
            "swugate.toml:13: log = \"loud\": off, error, warn, info, debug, trace, \
             or directives such as \"info,gateway::control=debug\"",
        ),
        (
            "secrets_file = \"secrets.toml\"",
            "secrets_file = \"secrets.toml\"\n[debug]\nkeylog = \"yes\"",
            "swugate.toml:13: keylog = \"yes\": true or false",
        ),
        (
            "secrets_file = \"secrets.toml\"",
            "secrets_file = \"secrets.toml\"\n[relay]\nbackend = \"127.0.0.1:0\"",
            "swugate.toml:13: backend = \"127.0.0.1:0\": a port from 1 to 65535 in address:port, such as \
             \"0.0.0.0:4500\" or \"[::]:4500\"",
        ),
        (
            "secrets_file = \"secrets.toml\"",
            "secrets_file = \"secrets.toml\"\n[[aaa]]\nname = \"main\"\nkind = \"ldap\"",
            "swugate.toml:14: kind = \"ldap\": radius, diameter or embedded",
        ),
        (
            "[[profile]]",
            "[[profiles]]",
            "swugate.toml:8: profiles = (tables): unknown key; known are relay, gateway, listen, metrics, inner, \
             pool, aaa, profile, certificate, tls, redirect, resumption, store, limits, debug",
        ),
    ];
    for (line, replacement, expected) in table {
        assert!(LEAST.contains(line), "{line}");
        let mistakes = dir.mistakes(&LEAST.replacen(line, replacement, 1));
        let expected = expected.split("             ").collect::<String>();
        assert!(
            mistakes.contains(&expected),
            "\nexpected {expected}\nfound    {}",
            mistakes.join("\n         ")
        );
    }
}

/// The system's list is in the report, so that it is no constant.
#[test]
fn the_congestion_control_is_one_that_the_kernel_offers() {
    let with = |value: &str| LEAST.replace("[[pool]]", &format!("congestion = {value}\n[[pool]]"));
    let dir = Dir::new();
    let options = ok(dir.load(&with("\"reno\"\nnodelay = false"))).listen.options;
    assert_eq!((options.congestion.as_deref(), options.nodelay), (Some("reno"), false));
    let options = ok(dir.load(LEAST)).listen.options;
    assert_eq!((options.congestion, options.nodelay), (None, true));
    let offered = fs::read_to_string("/proc/sys/net/ipv4/tcp_available_congestion_control").expect("Linux");
    for value in ["\"no-such\"", "\"../reno\"", "\"\"", "3"] {
        let expected = format!(
            "swugate.toml:5: congestion = {value}: a congestion control that the kernel offers: {}; \
             others need their module loaded",
            offered.trim()
        );
        assert_eq!(dir.mistakes(&with(value)), [expected]);
    }
}

#[test]
fn the_queue_of_a_path_has_another_bound_or_none() {
    let bound = |ms: u32| {
        let text = LEAST.replace("[[pool]]", &format!("[inner]\npath_queue_ms = {ms}\n[[pool]]"));
        ok(Dir::new().load(&text)).inner[0].queueing.path_queue.map(|bound| bound.as_millis())
    };
    assert_eq!((bound(0), bound(1), bound(1_000)), (None, Some(1), Some(1_000)));
}

#[test]
fn voice_may_wait_for_ever() {
    let text = LEAST.replace("[[pool]]", "[inner]\nvoice_late_ms = 0\n[[pool]]");
    assert_eq!(ok(Dir::new().load(&text)).inner[0].queueing.voice_late, None);
}

#[test]
fn the_least_octets_ahead_are_a_bound() {
    let text = LEAST.replace("[[pool]]", "[inner]\nunsent_octets = 4096\n[[pool]]");
    let queueing = ok(Dir::new().load(&text)).inner[0].queueing;
    assert_eq!(queueing.unsent.map(|octets| octets.get()), Some(4096));
}

#[test]
fn all_mistakes_are_reported_at_once_in_file_order() {
    let text = LEAST
        .replace("gw.test", "")
        .replace("10.64.0.0/16", "10.64.0.0/99")
        .replace("auth = \"psk\"", "auth = 7");
    let lines: Vec<String> = Dir::new()
        .mistakes(&text)
        .iter()
        .map(|mistake| mistake.split(':').nth(1).expect("a line").to_owned())
        .collect();
    assert_eq!(lines, ["2", "7", "10"]);
}

#[test]
fn an_empty_file_names_what_is_required() {
    let mistakes = Dir::new().mistakes("");
    for key in ["gateway", "pool", "profile"] {
        assert!(
            mistakes.iter().any(|mistake| mistake.starts_with(&format!("swugate.toml:1: {key} = (missing)"))),
            "{mistakes:?}"
        );
    }
}

#[test]
fn syntax_errors_have_their_line() {
    let mistakes = Dir::new().mistakes(&LEAST.replace("name = \"lab\"", "name = lab"));
    assert_eq!(mistakes.len(), 1, "{mistakes:?}");
    assert!(mistakes[0].starts_with("swugate.toml:9: name = lab: TOML syntax: "), "{mistakes:?}");
}

#[test]
fn a_missing_file_is_reported_like_a_mistake() {
    let errors = config::load(Path::new("/nonexistent/swugate.toml")).err().expect("an error");
    let line = errors[0].to_string();
    assert!(line.starts_with("/nonexistent/swugate.toml:1: file = (missing): a readable file"), "{line}");
}

#[test]
fn secrets_have_their_own_lines_and_are_never_repeated() {
    let dir = Dir::new();
    for (text, expected) in [
        ("psk = \"0xabc\"", "secrets.toml:1: psk = (hidden): a text, or octets in hexadecimal behind 0x"),
        ("\npsk = 7", "secrets.toml:2: psk = (hidden): a text, or octets in hexadecimal behind 0x"),
        ("pks = \"hush-hush\"", "secrets.toml:1: pks = (hidden): unknown key; known are psk, secret, ppk"),
        (
            "[[secret]]\nid = \"alice\"",
            "secrets.toml:1: psk = (missing): required in [[secret]]: a text, or octets in hexadecimal behind 0x",
        ),
        (
            "[[secret]]\nid = \"alice\"\nuser = \"alice\"\npsk = \"hush-hush\"",
            "secrets.toml:1: id = (missing): required in [[secret]]: exactly one of id (with psk), \
             imsi (with k and opc), user (with password)",
        ),
        (
            "[[secret]]\nuser = \"alice\"\npassword = \"hush-hush\"",
            "secrets.toml:1: psk = (missing): required: a default psk = \"…\" or a [[secret]] with id and psk",
        ),
    ] {
        dir.write("secrets.toml", text);
        let mistakes = dir.mistakes(LEAST);
        assert!(
            mistakes.iter().any(|mistake| mistake == expected),
            "\nexpected {expected}\nfound    {mistakes:?}"
        );
        assert!(!mistakes.join("").contains("hush-hush"), "{mistakes:?}");
    }
    dir.write("secrets.toml", "psk = hush-hush");
    assert!(!dir.mistakes(LEAST).join("").contains("hush-hush"));
}

#[test]
fn an_entry_of_secrets_wins_and_other_kinds_are_passed_over() {
    let dir = Dir::new();
    dir.write(
        "secrets.toml",
        "psk = \"common\"\n[[secret]]\nid = \"Alice@test\"\npsk = \"0x00ff\"\n\
         [[secret]]\nimsi = \"001010000000001\"\nk = \"465b5ce8b199b49faa5f0a2ee238a6bc\"\nopc = \"cd63cb71954a9f4e48a5994e37a02baf\"\namf = \"8000\"\n\
         [[secret]]\nuser = \"bob\"\npassword = \"x\"\n",
    );
    let config = ok(dir.load(LEAST));
    let AuthKind::Psk(keys) = &config.responder.profiles[0].auth else { panic!("not psk") };
    assert_eq!(keys.find("alice@test").expect("an entry").octets(), [0, 0xff]);
    assert_eq!(keys.find("bob").expect("the default").octets(), b"common");
}

#[test]
fn secrets_that_others_may_read_are_a_warning() {
    let dir = Dir::new();
    let path = dir.write("secrets.toml", "psk = \"common\"");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).expect("mode set");
    let config = ok(dir.load(LEAST));
    assert_eq!(
        config.warnings,
        [format!("{}: mode 0644 lets others read it; 0600 is enough", path.display())]
    );
}

#[test]
fn every_missing_certificate_file_is_reported_and_a_wrong_one_too() {
    let dir = Dir::new();
    let text = LEAST
        .replace("auth = \"psk\"", "auth = \"certificate\"")
        .replace("secrets_file = \"secrets.toml\"\n", "")
        + "[certificate]\nchain = \"gw.pem\"\nkey = \"gw.key\"\nca = \"ca.pem\"\n";
    let missing = "the path of a PEM file (No such file or directory (os error 2))";
    assert_eq!(
        dir.mistakes(&text),
        [
            format!("swugate.toml:12: chain = \"gw.pem\": {missing}"),
            format!("swugate.toml:13: key = \"gw.key\": {missing}"),
            format!("swugate.toml:14: ca = \"ca.pem\": {missing}"),
        ]
    );
    for name in ["gw.pem", "gw.key", "ca.pem"] {
        dir.write(name, "not PEM");
    }
    let mistakes = dir.mistakes(&text);
    assert_eq!(mistakes.len(), 1, "{mistakes:?}");
    assert!(
        mistakes[0].starts_with("swugate.toml:12: chain = \"gw.pem\": the path of a PEM file ("),
        "{mistakes:?}"
    );
}

#[test]
fn tls_takes_its_certificate_from_either_table_and_names_what_is_wrong() {
    let dir = Dir::new();
    let fixture = |name: &str| fs::read_to_string(format!("tests/fixtures/pki/{name}")).expect("a fixture");
    dir.write("gw.pem", &fixture("gw-ec.pem"));
    dir.write("gw.key", &fixture("gw-ec.key"));
    dir.write("other.key", &fixture("gw-rsa.key"));
    dir.write("ca.pem", &fixture("root.pem"));
    let listen = LEAST.replace("tcp = [\"127.0.0.1:4500\"]", "tcp = []\ntls = [\"127.0.0.1:443\"]");
    let own = |chain: &str, key: &str| format!("{listen}[tls]\nchain = \"{chain}\"\nkey = \"{key}\"\n");
    let shared = format!("{listen}[certificate]\nchain = \"gw.pem\"\nkey = \"gw.key\"\nca = \"ca.pem\"\n");
    for text in [own("gw.pem", "gw.key"), shared] {
        let config = ok(dir.load(&text));
        assert!(config.tls.is_some() && config.listen.uses_tls() && config.listen.tcp.is_empty());
    }
    for (chain, key, wrong) in [
        ("none.pem", "gw.key", "chain = \"none.pem\": the path of a PEM file (No such file"),
        ("gw.pem", "gw.pem", "key = \"gw.pem\": the path of a PEM file ("),
        ("ca.toml", "gw.key", "chain = \"ca.toml\": the path of a PEM file (no certificate in PEM form)"),
        ("gw.pem", "other.key", "key = \"other.key\": the path of a PEM file (keys may not be consistent"),
    ] {
        dir.write("ca.toml", "nothing");
        let mistakes = dir.mistakes(&own(chain, key));
        assert!(mistakes.len() == 1 && mistakes[0].contains(wrong), "{mistakes:?}");
    }
    // Nobody listens: nothing is opened.
    ok(dir.load(&format!("{LEAST}[tls]\nchain = \"none.pem\"\nkey = \"none.key\"\n")));
}

#[test]
fn the_run_directory_is_found_even_in_a_broken_file() {
    let dir = Dir::new();
    let path = dir.write("swugate.toml", "[gateway]\nrun_dir = \"run\"\nbroken = \n");
    assert_eq!(config::run_dir(&path), dir.0.path().join("run"));
    assert_eq!(config::run_dir(Path::new("/nonexistent")), Path::new("/run/swugate"));
}

#[test]
fn r5685_redirection_is_read_and_its_mistakes_are_told() {
    let dir = Dir::new();
    let text = format!(
        "{LEAST}redirect = \"192.0.2.9\"\n[redirect]\nto = [\"gw2.example\", \"2001:db8::7\"]\nfrom_sessions = 5\n"
    );
    let config = ok(dir.load(&text));
    let redirect = config.responder.redirect.as_ref().expect("read");
    let names: Vec<String> = redirect.to.iter().map(|gateway| gateway.id().to_string()).collect();
    assert_eq!(names, ["gw2.example", "2001:db8::7"]);
    assert_eq!((redirect.from_sessions, redirect.wait.as_secs()), (5, 10));
    let profile = config.responder.profiles[0].redirect.as_ref().expect("read");
    assert_eq!(profile.id().to_string(), "192.0.2.9");
    assert!(ok(dir.load(LEAST)).responder.redirect.is_none());
    for (to, wrong) in [
        ("[]", "at least one of"),
        ("[\"gw 2\"]", "FQDN or IP address"),
        ("[\"GW.test\"]", "another gateway than this one"),
    ] {
        let mistakes = dir.mistakes(&format!("{LEAST}[redirect]\nto = {to}\n"));
        assert!(mistakes.len() == 1 && mistakes[0].contains(wrong), "{mistakes:?}");
    }
    assert!(dir.mistakes(&format!("{LEAST}[redirect]\n"))[0].contains("required in [redirect]"));
}

#[test]
fn r5723_and_r8784_resumption_and_ppks_are_read_and_their_mistakes_are_told() {
    let dir = Dir::new();
    dir.write("ticket.key", "0x00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff\n");
    dir.write(
        "secrets.toml",
        "psk = \"x\"\n[[ppk]]\nid = \"one\"\nkey = \"0123456789abcdef0123456789abcdef\"\n\
         [[ppk]]\nid = \"two\"\nkey = \"short\"\n",
    );
    let text =
        format!("{LEAST}ppk = \"required\"\n[resumption]\nlifetime_s = 600\nkey_file = \"ticket.key\"\n");
    let config = ok(dir.load(&text));
    let ppk = config.responder.profiles[0].ppk.as_ref().expect("read");
    assert!(ppk.required && ppk.keys.contains_key(&b"one"[..]) && ppk.keys.len() == 2);
    assert!(config.warnings.iter().any(|warning| warning.contains("less than 32 octets")));
    let resumption = config.responder.resumption.as_ref().expect("read");
    assert_eq!((resumption.lifetime.as_secs(), resumption.reauth.as_secs()), (600, 86_400));
    assert_eq!(resumption.key.as_ref().expect("read").octets().len(), 32);
    let plain = ok(dir.load(LEAST));
    assert!(plain.responder.resumption.is_none() && plain.responder.profiles[0].ppk.is_none());

    dir.write("ticket.key", "short");
    let mistakes = dir.mistakes(&text);
    assert!(mistakes.len() == 1 && mistakes[0].contains("at least 32 octets"), "{mistakes:?}");
    dir.write("secrets.toml", "psk = \"x\"\n");
    let mistakes = dir.mistakes(&format!("{LEAST}ppk = \"optional\"\n"));
    assert!(mistakes.len() == 1 && mistakes[0].contains("[[ppk]] entries"), "{mistakes:?}");
    let mistakes = dir.mistakes(&format!("{LEAST}ppk = \"maybe\"\n"));
    assert!(mistakes.len() == 1 && mistakes[0].contains("\"off\", \"optional\""), "{mistakes:?}");
}
