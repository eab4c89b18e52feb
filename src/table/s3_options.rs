//! What `[warehouse] options` and the `AWS_*` variables say to a store that speaks S3, and what they may not say: commits
//! are exact only where put-if-absent holds. Names and values in, a client's settings out; nothing is connected to.

use std::collections::BTreeMap;

use object_store::ClientConfigKey;
use object_store::aws::AmazonS3ConfigKey as Key;

/// The options that may be set, as an error lists them. Each but the first may also be called without its `aws_`.
const KNOWN: [&str; 35] = [
    "allow_http",
    "aws_access_key_id",
    "aws_secret_access_key",
    "aws_session_token",
    "aws_region",
    "aws_default_region",
    "aws_endpoint",
    "aws_endpoint_url_s3",
    "aws_virtual_hosted_style_request",
    "aws_role_arn",
    "aws_role_session_name",
    "aws_web_identity_token_file",
    "aws_endpoint_url_sts",
    "aws_container_credentials_relative_uri",
    "aws_container_credentials_full_uri",
    "aws_container_authorization_token_file",
    "aws_metadata_endpoint",
    "aws_imdsv1_fallback",
    "aws_skip_signature",
    "aws_unsigned_payload",
    "aws_checksum_algorithm",
    "aws_request_payer",
    "aws_server_side_encryption",
    "aws_sse_kms_key_id",
    "aws_sse_bucket_key_enabled",
    "aws_sse_customer_key_base64",
    "timeout",
    "connect_timeout",
    "pool_idle_timeout",
    "pool_max_idle_per_host",
    "proxy_url",
    "proxy_ca_certificate",
    "proxy_excludes",
    "allow_invalid_certificates",
    "user_agent",
];

/// What a client is told, besides its bucket.
#[derive(Default)]
pub(super) struct S3Options {
    values: Vec<(Key, String)>,
}

impl S3Options {
    /// What `options` say, and below them the `AWS_*` variables of `environment`.
    ///
    /// # Errors
    /// For an option that is not known, or that weir rests on: its name and what is allowed, never its value.
    pub(super) fn read(
        options: &BTreeMap<String, String>,
        environment: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Self, String> {
        let mut chosen = Vec::new();
        for (name, value) in options {
            let key: Key = name.to_ascii_lowercase().parse().map_err(|_| unknown(name))?;
            if let Some(why) = refusal(&key, value) {
                return Err(format!("the option `{name}` cannot be set: {why}"));
            }
            chosen.push((key, value.clone()));
        }
        let inherited = environment.into_iter().filter_map(|(name, value)| {
            let key: Key = name.starts_with("AWS_").then(|| name.to_ascii_lowercase().parse().ok())??;
            // They may be meant for other programs, and say nothing that a client of ours must know.
            (refusal(&key, &value).is_none() && !is_settled(&key, &chosen)).then_some((key, value))
        });
        let mut values: Vec<(Key, String)> = inherited.collect();
        values.extend(chosen);
        Ok(Self { values })
    }

    /// Lowest first: a later one of the same name counts.
    pub(super) fn values(&self) -> &[(Key, String)] {
        &self.values
    }

    fn value(&self, keys: &[Key]) -> Option<&str> {
        self.values.iter().rev().find(|(key, _)| keys.contains(key)).map(|(_, value)| value.as_str())
    }

    /// Texts that no message may show.
    pub(super) fn secrets(&self) -> Vec<String> {
        let of_secrets = self.values.iter().filter(|(key, value)| is_secret(key) && !value.is_empty());
        of_secrets.map(|(_, value)| value.clone()).collect()
    }

    /// What contradicts.
    pub(super) fn check(&self) -> Result<(), String> {
        let endpoint = self.value(&[Key::S3Endpoint, Key::Endpoint]).unwrap_or_default();
        let allowed = self.value(&[Key::Client(ClientConfigKey::AllowHttp)]).unwrap_or("false");
        if endpoint.to_ascii_lowercase().starts_with("http:") && !allowed.eq_ignore_ascii_case("true") {
            return Err(
                "the endpoint is http://, without TLS; if that is meant, set the option allow_http = true".into()
            );
        }
        Ok(())
    }
}

fn unknown(name: &str) -> String {
    format!("the option `{name}` is not known; known are {}", KNOWN.join(", "))
}

/// Why an option may not be set.
fn refusal(key: &Key, value: &str) -> Option<&'static str> {
    match key {
        Key::ConditionalPut if value.trim().eq_ignore_ascii_case("etag") => None,
        Key::ConditionalPut => Some("two services could then overwrite each other's commits"),
        Key::Bucket => Some("the url names the bucket"),
        Key::CopyIfNotExists => Some("nothing is copied"),
        Key::S3Express => Some("directory buckets list in no order, on which readers of Delta logs count"),
        _ => None,
    }
}

/// Whether the options say so much that a variable of this name must not be mixed into it.
fn is_settled(key: &Key, chosen: &[(Key, String)]) -> bool {
    const TOGETHER: [&[Key]; 3] = [
        &[Key::AccessKeyId, Key::SecretAccessKey, Key::Token],
        &[Key::Endpoint, Key::S3Endpoint],
        &[Key::Region, Key::DefaultRegion],
    ];
    TOGETHER.iter().any(|group| group.contains(key) && chosen.iter().any(|(key, _)| group.contains(key)))
}

fn is_secret(key: &Key) -> bool {
    matches!(key, Key::AccessKeyId | Key::SecretAccessKey | Key::Token | Key::Client(ClientConfigKey::ProxyUrl))
        || key.as_ref() == "aws_sse_customer_key_base64"
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(options: &[(&str, &str)], environment: &[(&str, &str)]) -> Result<S3Options, String> {
        let owned = |pairs: &[(&str, &str)]| -> Vec<(String, String)> {
            pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
        };
        S3Options::read(&owned(options).into_iter().collect(), owned(environment))
    }

    #[test]
    fn every_option_that_is_listed_is_known_and_may_be_set() {
        for name in KNOWN {
            assert!(read(&[(name, "1")], &[]).is_ok(), "{name}");
            if let Some(short) = name.strip_prefix("aws_").filter(|short| *short != "endpoint_url_s3") {
                assert!(read(&[(short, "1")], &[]).is_ok(), "{short}");
            }
        }
    }

    #[test]
    fn an_unknown_option_is_named_and_its_value_is_not() {
        let error = read(&[("acess_key_id", "hush")], &[]).err().unwrap();
        assert!(error.contains("`acess_key_id`") && error.contains("aws_access_key_id"), "{error}");
        assert!(!error.contains("hush"), "{error}");
    }

    #[test]
    fn what_exactness_rests_on_cannot_be_turned_off() {
        for (name, value) in [
            ("conditional_put", "disabled"),
            ("aws_conditional_put", "dynamo:t"),
            ("bucket", "other"),
            ("s3_express", "true"),
            ("copy_if_not_exists", "multipart"),
        ] {
            let error = read(&[(name, value)], &[]).err().unwrap();
            assert!(error.contains(name), "{error}");
        }
        assert!(read(&[("conditional_put", "etag")], &[]).is_ok());
        // Variables for other programs are passed over.
        let settings =
            read(&[], &[("AWS_CONDITIONAL_PUT", "disabled"), ("AWS_BUCKET", "b"), ("AWS_PAGER", "")]).unwrap();
        assert!(settings.values().is_empty());
    }

    #[test]
    fn options_win_over_variables_and_credentials_are_not_mixed() {
        let environment = [
            ("AWS_ACCESS_KEY_ID", "env"),
            ("AWS_SECRET_ACCESS_KEY", "env"),
            ("AWS_SESSION_TOKEN", "env"),
            ("AWS_ENDPOINT_URL_S3", "https://env"),
            ("AWS_REGION", "eu-west-1"),
        ];
        let options = [("access_key_id", "own"), ("secret_access_key", "own"), ("endpoint", "https://own")];
        let settings = read(&options, &environment).unwrap();
        assert_eq!(settings.value(&[Key::Token]), None);
        assert_eq!(settings.value(&[Key::S3Endpoint, Key::Endpoint]), Some("https://own"));
        assert_eq!(settings.value(&[Key::Region]), Some("eu-west-1"));
        assert_eq!(settings.secrets(), ["own", "own"]);
        let settings = read(&[], &environment).unwrap();
        assert_eq!(settings.secrets(), ["env", "env", "env"]);
    }

    #[test]
    fn an_endpoint_without_tls_is_asked_about() {
        let error = read(&[("endpoint", "http://minio:9000")], &[]).unwrap().check().unwrap_err();
        assert!(error.contains("allow_http"), "{error}");
        assert!(read(&[("endpoint", "http://minio:9000"), ("allow_http", "true")], &[]).unwrap().check().is_ok());
        assert!(read(&[("endpoint", "https://minio")], &[("AWS_ALLOW_HTTP", "no")]).unwrap().check().is_ok());
    }
}
