use super::*;

fn parse(url: &str) -> Result<Database, DatabaseUrlError> {
    tls::install_provider();
    Database::parse(url)
}

#[test]
fn both_spellings_say_the_same() {
    for text in [
        "postgres://u:p%40s%27s@db:5433/usage?sslmode=require&application_name=x&connect_timeout=7&keepalives_count=9",
        "host=db port = 5433 user=u password='p@s\\'s' dbname=usage sslmode=require application_name=x connect_timeout=7 keepalives_count=9",
    ] {
        let config = parse(text).unwrap().session("worker", &[]).config;
        assert_eq!(config.get_password(), Some(&b"p@s's"[..]), "{text}");
        assert_eq!(config.get_ssl_mode(), SslMode::Require, "{text}");
        assert_eq!(config.get_application_name(), Some("x"), "{text}");
        assert_eq!(
            config.get_connect_timeout(),
            Some(&Duration::from_secs(7)),
            "{text}"
        );
        assert_eq!(config.get_keepalives_retries(), Some(9), "{text}");
        assert_eq!(config.get_ports(), [5433], "{text}");
    }
    let plain = parse("postgres://db/usage").unwrap().session("worker", &[]);
    assert_eq!(plain.config.get_ssl_mode(), SslMode::Prefer);
    assert_eq!(plain.config.get_application_name(), Some("worker"));
    let timed = plain.connect_timeout(Duration::from_secs(3));
    assert_eq!(timed.config.get_connect_timeout(), Some(&Duration::from_secs(3)));
}

#[test]
fn refuses_what_it_cannot_do_by_name_and_what_it_does_not_know_without_repeating_it() {
    for (parameter, named) in [
        ("sslmode=verify-all", "sslmode"),
        ("sslmode=verify-ca", "sslrootcert"),
        ("sslmode=require&sslrootcert=system", "sslmode=verify-full"),
        ("sslcert=a.pem", "sslkey"),
        ("sslcrl=a.pem", "sslcrl"),
        ("sslpassword=s3cret", "sslpassword"),
        ("target_session_attrs=master", "prefer-standby"),
        ("keepalives_idle=s3cret", "keepalives_idle"),
        ("nonsense=1", "a parameter"),
        ("s3cret=1", "a parameter"),
    ] {
        let pairs = format!("host=db password=s3cret {}", parameter.replace('&', " "));
        for text in [format!("postgres://u:s3cret@db/usage?{parameter}"), pairs] {
            let error = parse(&text).err().unwrap();
            let said = format!("{error:?} {error}");
            assert!(
                error.to_string().contains(named) && !said.contains("s3cret"),
                "{text}: {said}"
            );
        }
    }
    assert!(matches!(parse("host='db"), Err(DatabaseUrlError::Malformed)));
    assert!(matches!(
        parse("postgres://db/x?sslmode=verify-full&sslrootcert=%2Fnonexistent.pem"),
        Err(DatabaseUrlError::Tls(TlsError::Read { .. }))
    ));
}

#[test]
fn settings_of_the_connection_string_come_first_and_are_kept() {
    let database = parse("postgres://db/x?options=-c%20tcp_keepalives_idle%3D60")
        .unwrap()
        .session("worker", &[("synchronous_commit", "on")]);
    assert_eq!(database.config.get_options(), Some("-c tcp_keepalives_idle=60"));
    let names: Vec<&str> = database.settings.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(
        names,
        [
            "tcp_keepalives_interval",
            "tcp_keepalives_count",
            "synchronous_commit"
        ]
    );
}

#[test]
fn who_writes_takes_one_that_can_be_written_to() {
    let target = |url: &str| parse(url).unwrap().writing().target;
    assert_eq!(target("postgres://a/x"), None);
    assert_eq!(
        target("postgres://a,b/x"),
        Some(Target::Only(ServerRole::ReadWrite))
    );
    assert_eq!(
        target("postgres://a,b/x?target_session_attrs=primary"),
        Some(Target::Only(ServerRole::Primary))
    );
}
