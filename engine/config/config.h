/* The configuration: one YAML file, one schema (config_schema*.c) that checks it, fills these
 * structs and prints the reference. Immutable once loaded; reference-counted, so that a reload
 * replaces it while others still read the old one. */
#ifndef HAYAUMA_ENGINE_CONFIG_H
#define HAYAUMA_ENGINE_CONFIG_H

#include <netinet/in.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>

#include "base/buf.h"
#include "base/str.h"
#include "base/zone.h"

struct config_address { /* "0.0.0.0:25", "[::]:25", "unix:/run/x.sock" */
    struct sockaddr_storage addr;
    socklen_t len;
    char *text;
};

struct config_network { /* "192.0.2.0/24", "2001:db8::/32"; IPv4-mapped IPv6 matches IPv4 */
    uint8_t bytes[16];
    uint8_t prefix; /* on the 128-bit form */
};

#define CONFIG_LISTENERS_MAX    64
#define CONFIG_CERTIFICATES_MAX 256
#define CONFIG_SHARE_NAME_MAX   64 /* as trace.h takes them from the header */

/* As whom mail may be sent: "example.com", "*.example.com", "*", "a@example.com", "<>" (the null
 * sender). */
struct config_senders {
    char **envelope; /* MAIL FROM; none: anybody */
    size_t envelope_len;
    char **from; /* the message's From field; none: as envelope */
    size_t from_len;
};

/* What a listener does otherwise for clients of a network; NULL: as for all. */
struct config_client {
    struct config_network network;
    char *bare_newlines;
    char *pool;
    struct config_senders senders;
};

struct config_certificate { /* files in PEM */
    char *chain_file, *key_file;
};

struct config_listener {
    char *name; /* for logs; default: its address */
    struct config_address address;
    uint32_t mode;                         /* of a Unix socket */
    char *host_name;                       /* banner; default: the global one */
    struct config_network *relay_networks; /* may relay; default 127.0.0.0/8 and ::1 */
    size_t relay_networks_len;
    struct config_network *proxy_from; /* balancers, who say whose connection it is; else NULL */
    size_t proxy_from_len;
    struct config_network *xclient_from; /* proxies that say by XCLIENT whose commands follow */
    size_t xclient_from_len;
    char *auth; /* "none", "offered", "required" */
    bool auth_without_tls;
    char *bare_newlines;           /* "refuse", "repair" */
    struct config_client *clients; /* by network, in any order */
    size_t clients_len;
    char *tls;                 /* "none", "starttls", "implicit" */
    bool tls_required;         /* before there is mail */
    char *tls_version_min;     /* "1.2", "1.3" */
    uint32_t tls_timeout_ms;   /* of a handshake */
    char *client_certificates; /* "off", "ask", "require" */
    char *client_ca_file;      /* authorities that vouch for clients; NULL: none */
    char *client_crl_file;     /* what they have taken back; NULL: nobody looks */
    char **relay_certificates; /* of clients that may relay; config_relays_certificate() */
    size_t relay_certificates_len;
    uint32_t tls_handshakes_max;
    char **headers; /* X-Hayauma- fields that clients may choose with: "pool", "tenant", ... */
    size_t headers_len;
    uint32_t headers_taken;   /* the same, a bit for each enum config_header */
    char *idempotency_header; /* names a message's key, or NULL */
    bool suppression;         /* recipients are looked up in the suppression list */
    char *pool;               /* of mail that no rule closer to it sends elsewhere, or NULL */
    struct config_senders senders;
    uint64_t message_bytes_max;
    uint32_t recipients_max;
    uint32_t command_line_bytes_max;
    uint32_t body_line_bytes_max;
    uint32_t errors_max;
    uint32_t commands_max;
    uint32_t messages_max;
    uint32_t sessions_max;            /* of this listener in all */
    uint32_t sessions_per_client_max; /* per client address */
    uint32_t received_max;            /* loop limit: Received headers */
    uint32_t idle_timeout_ms;         /* waiting for a command or body bytes */
    uint32_t session_timeout_ms;      /* in all */
};

enum config_route_kind {
    CONFIG_ROUTE_MX,
    CONFIG_ROUTE_HOST,
    CONFIG_ROUTE_LMTP,
    CONFIG_ROUTE_REJECT
};

struct config_credentials { /* with which we log in to a next hop: a line of credentials_file */
    char *user, *password;
};

struct config_route { /* static route of a domain pattern */
    char *pattern;    /* "example.com", "*.example.com", "*" (the default smarthost) */
    enum config_route_kind kind;
    bool mx_lookup; /* host without brackets: MX of host; with brackets: its address */
    char *host;     /* name, or address literal */
    uint16_t port;
    bool port_given;                              /* else it is dns.port */
    unsigned line;                                /* of the file; 0: none */
    struct config_address socket;                 /* LMTP over a Unix socket or TCP */
    const struct config_credentials *credentials; /* NULL: none, no AUTH */
};

enum config_tls {
    CONFIG_TLS_NONE,
    CONFIG_TLS_MAY,
    CONFIG_TLS_ENCRYPT,
    CONFIG_TLS_VERIFY,
    CONFIG_TLS_DANE,    /* where the receiver has published TLSA records, else may */
    CONFIG_TLS_STS,     /* where the domain has a policy of MTA-STS in force, else may */
    CONFIG_TLS_DANE_STS /* as dane for exchangers with TLSA records, else as mta-sts */
};

struct config_rate { /* count per period_ms, and burst more at once; count 0: no limit */
    uint64_t count;
    uint32_t period_ms, burst;
};

struct config_destination {   /* limits and timing for a domain or site pattern; first match wins */
    char *pattern;            /* "example.com", "*.example.com", "site:*.google.com", "*" */
    uint32_t sessions_max;    /* per source, process-wide */
    uint32_t urgent_sessions; /* of these, for mail of a better priority than the default alone */
    uint32_t session_messages_max;
    uint32_t recipients_max; /* per transaction */
    uint64_t rate_messages;  /* messages per rate_period_ms; 0 = no limit */
    uint32_t rate_period_ms, rate_burst;
    struct config_rate recipient_rate, byte_rate;
    uint32_t host_sessions_max; /* to one exchanger, over all sources; 0 = no limit */
    struct config_rate host_rate, host_recipient_rate, host_byte_rate, host_connect_rate;
    uint32_t total_sessions_max; /* over all sources; 0 = no limit */
    uint64_t total_rate_messages;
    uint32_t total_rate_period_ms, total_rate_burst;
    struct config_rate total_recipient_rate, total_byte_rate, total_connect_rate;
    struct config_rate connect_rate; /* sessions begun, per source */
    uint32_t quiet_hours;            /* a bit per hour of time_zone in which nothing is sent */
    char *time_zone;
    const struct zone *zone; /* that; NULL without quiet hours */
    uint32_t addresses_max;  /* tried by one session; 0 = all */
    uint32_t pipeline_max;   /* transactions in flight with CHUNKING */
    uint32_t idle_ms;        /* keep an idle session this long */
    bool no_chunking, no_pipelining;
    bool auth_without_tls;
    char *tls;             /* config_tls_word(); config_tls_of() */
    char *tls_certificate; /* file of what is shown to servers that ask; NULL: the source's */
    uint32_t connect_timeout_ms, banner_timeout_ms, ehlo_timeout_ms, tls_timeout_ms,
        mail_timeout_ms, rcpt_timeout_ms, data_timeout_ms, body_timeout_ms, dot_timeout_ms,
        quit_timeout_ms;
    /* Retry. Either a list or exponential. */
    uint32_t *retry_list_s; /* seconds after each attempt; the last repeats */
    size_t retry_list_len;
    uint32_t retry_first_s, retry_max_s; /* doubling from first to max */
    uint32_t retry_jitter_percent;
    uint32_t lifetime_s;        /* queue lifetime */
    uint32_t notice_lifetime_s; /* of our own DSNs */
    uint32_t warn_after_s;      /* delay notice; 0 = none */
};

/* Who takes mail for many domains, and shares limits among them all. */
struct config_provider {
    struct config_destination dest; /* what holds there; first, as keys have their offsets in it */
    char *name;                     /* of its site: "google" */
    char **mx;                      /* how names of its exchangers end */
    size_t mx_len;
    const char *warmup; /* the name under which warm-up counts it */
};

struct config_share_site { /* what a tenant or campaign may send to a site */
    char *site;            /* its name, or a pattern of names: glob_match() */
    uint32_t sessions_max; /* that have its mail under way; 0 = no limit */
    struct config_rate rate, recipient_rate, byte_rate;
    struct config_rate connect_rate; /* sessions that begin to have its mail */
};

struct config_share { /* a tenant or campaign */
    char *name;
    uint32_t weight;
    char *pool;                      /* or NULL */
    struct config_share_site *sites; /* the first that matches a site's name applies there */
    size_t sites_len;
    struct config_senders senders; /* of a tenant */
};

struct config_user { /* who may log in to submit: a line of auth.users_file */
    char *name;
    char *hash;          /* of the password, as crypt(3) has it */
    char **certificates; /* by one of which the user logs in with EXTERNAL, or NULL */
    size_t certificates_len;
    struct config_senders senders;
    char *tenant;           /* all mail is of it; NULL: as the mail says */
    char *pool;             /* NULL: as the mail says */
    int8_t priority;        /* the best that mail gets; -1: any */
    uint64_t rate_messages; /* per rate_period_ms; 0: no limit */
    uint32_t rate_period_ms;
};

/* What a message's header may choose: X-Hayauma-Pool and so on. */
enum config_header {
    CONFIG_HEADER_POOL,
    CONFIG_HEADER_CAMPAIGN,
    CONFIG_HEADER_TENANT,
    CONFIG_HEADER_PRIORITY,
    CONFIG_HEADER_NOT_BEFORE,
    CONFIG_HEADER_ENGAGED,
    CONFIG_HEADERS
};

#define CONFIG_SOURCES_MAX 1000

/* --- warm-up --- */

/* What a provider's answers say against more volume. */
enum config_warmup_sign {
    CONFIG_WARMUP_DEFERRED,
    CONFIG_WARMUP_BOUNCED,
    CONFIG_WARMUP_COMPLAINED,
    CONFIG_WARMUP_SIGNS
};

struct config_warmup_schedule {
    char *name;
    uint32_t *steps; /* recipients a day, stage by stage */
    size_t steps_len;
};

/* Whose mail is warmed up: that of a source, or, whichever source sends it, what a domain signs, or
 * that of a campaign. */
enum config_warmup_kind {
    CONFIG_WARMUP_SOURCE,
    CONFIG_WARMUP_SIGNER,
    CONFIG_WARMUP_CAMPAIGN,
    CONFIG_WARMUP_KINDS
};

struct config_warmup_source { /* one of any kind */
    char *name, *schedule;
    uint32_t from; /* day since 1970-01-01; 0: that of its first mail */
    char *mode;    /* "earned", "calendar" */
    bool promote;
};

struct config_warmup_provider {
    char *name;
    uint32_t pace, top_of_hour_s; /* percent; 0: as shipped */
    bool promote;
    uint32_t hold[CONFIG_WARMUP_SIGNS]; /* in 1/100 %; 0: as for all */
    uint32_t fall[CONFIG_WARMUP_SIGNS];
};

/* All that holds for one of these at a provider. Pointers are into the configuration or constant.
 */
struct config_warmup_policy {
    const uint32_t *steps;
    size_t steps_len;
    uint32_t pace, top_of_hour_s;
    uint32_t from;
    bool calendar, promote;
    uint32_t advance_used; /* percent */
    uint32_t hold[CONFIG_WARMUP_SIGNS], fall[CONFIG_WARMUP_SIGNS], fall_stages;
    uint32_t rewarm_days; /* 0: never */
};

/* --- rules --- */

/* Where in the dialogue a refusal comes: bits. */
enum config_rule_stage {
    CONFIG_RULE_GREETING = 1, /* up to EHLO */
    CONFIG_RULE_MAIL = 2,
    CONFIG_RULE_RCPT = 4,
    CONFIG_RULE_DATA = 8,
    CONFIG_RULE_MESSAGE = 16, /* behind the content */
    CONFIG_RULE_ANYWHERE = 31
};

/* Whose mail to a provider waits. */
enum config_rule_scope {
    CONFIG_RULE_SOURCE,   /* of one source */
    CONFIG_RULE_SITE,     /* all to the site */
    CONFIG_RULE_CAMPAIGN, /* of one campaign */
    CONFIG_RULE_TENANT,
    CONFIG_RULE_DOMAIN,   /* all to the recipient's domain */
    CONFIG_RULE_NETBLOCK, /* of all sources in the /24 or /64 of the address that was used */
    CONFIG_RULE_SIGNER,   /* that the domain signs which signed what was refused */
    CONFIG_RULE_ENVELOPE, /* with the domain of its return path in theirs */
    CONFIG_RULE_SOURCE_AND_DOMAINS /* each of three: source, signing domain, envelope domain */
};

enum config_rule_outcome { CONFIG_RULE_AS_SAID, CONFIG_RULE_DEFERRED, CONFIG_RULE_FAILED };

#define CONFIG_RULE_AFTER_MAX 100

/* How a refusal is read that it matches: by all that it says. */
struct config_rule {
    char *name;
    char **providers; /* names; none: any */
    size_t providers_len;
    char **mx; /* how names of exchangers end; none: any */
    size_t mx_len;
    char *stage_word, *code_word, *enhanced_word; /* as written; the latter two may be NULL */
    char **texts;                                 /* one of these is in the reply */
    size_t texts_len;
    /* What follows. */
    char *outcome_word, *scope_word;
    uint32_t suspend_s; /* 0: not */
    bool slow_down;     /* one session less */
    /* What the source may do at the site is lowered to this for lowered_s, and comes back by
     * doubling; 0: not. */
    uint64_t rate_messages;
    uint32_t rate_period_ms, sessions_max, session_messages_max, lowered_s;
    uint32_t retry_s;     /* 0: as the retry table says */
    bool retry_at_most;   /* shipped rules only: the table may say sooner */
    char *pool;           /* by which a deferred recipient goes on; NULL: the same */
    char *classification; /* in records; NULL: as classify.h reads the reply */
    bool no_suppression;  /* it says nothing of the address, whatever its words */
    bool alarm;
    uint32_t after, within_s; /* suspends, and raises the alarm, with the after-th within_s */
    bool disabled;
    const char *from; /* of a shipped rule: who published the wording, and when; else NULL */
    /* The words above, as config_finish() reads them. */
    uint8_t stages;
    uint16_t code_first, code_last;
    uint16_t enhanced_class, subject, detail_first, detail_last; /* class 0: any or none */
    enum config_rule_outcome outcome;
    enum config_rule_scope scope;
};

/* Who connects for a source. One of the two addresses is given, or neither: it connects itself. */
struct config_proxy {
    struct config_address socks5, haproxy;
    char *user, *password_file; /* of socks5; NULL: no login */
    char *password;             /* what the file has */
};

struct config_source { /* where sessions come from */
    char *name;
    struct config_address ipv4, ipv6; /* len 0: not over this family; both 0: the kernel chooses */
    char *ehlo_name;
    uint32_t sessions_max;  /* over all sites, process-wide; 0 = no limit */
    uint64_t rate_messages; /* the same, messages per rate_period_ms */
    uint32_t rate_period_ms, rate_burst;
    struct config_rate recipient_rate, byte_rate, connect_rate;
    char *tls_certificate;     /* shown where the destination names none; NULL: none */
    struct config_proxy proxy; /* where it has one, its addresses are of the proxy's machine */
};

struct config_pool_source { /* a source's place in a pool */
    char *name;
    uint32_t weight;
    const struct config_source *source;
};

enum config_selection {
    CONFIG_SELECT_WEIGHTED, /* weighted round robin */
    CONFIG_SELECT_DOMAIN,   /* mail for one domain comes from one source */
    CONFIG_SELECT_CAMPAIGN  /* mail of one campaign does */
};

struct config_pool {
    char *name;
    struct config_pool_source *sources;
    size_t sources_len;
    char *selection_word;
    enum config_selection selection;
    char *overflow_name;
    const struct config_pool *overflow; /* sends what finds no room here; or NULL */
    char *engaged_name;    /* that has mail marked as for engaged recipients instead; or NULL */
    uint32_t attempts_max; /* of a recipient; then it goes on by overflow. 0: any number */
};

struct config_sender { /* a rule for mail of a sender domain */
    char *pattern;     /* "example.com", "*.example.com", "*" */
    char *pool;        /* or NULL */
    /* What letters of campaigns get; each may be NULL. */
    char *return_path;        /* how the return path of each begins: "bounce+" */
    char *unsubscribe;        /* how the URL of each begins */
    char *unsubscribe_mailto; /* address */
    char *feedback_id;        /* the sender's part of Feedback-ID */
};

#define CONFIG_LETTER_KEY_BYTES 32

struct config_letter_key { /* by which what comes back of letters is known */
    int64_t from_s;        /* Unix time: for campaigns that were made from then on */
    uint8_t bytes[CONFIG_LETTER_KEY_BYTES];
};

struct config_dkim_key { /* a key that signs mail of its domain */
    char *domain, *selector, *file;
    bool subdomains; /* also mail of domains below it that have no key of their own */
    unsigned line;   /* of the file; 0: none */
};

struct keyring;

struct config {
    uint32_t refs;
    uint64_t generation; /* given by the engine: larger with each reload */
    char *file;          /* where it was read from */
    bool is_empty;       /* there is no key in it: all defaults */
    char *host_name;     /* our name: Received, EHLO, Message-ID; default gethostname() */
    char *node_id;       /* in records; default host_name */
    uint32_t workers;    /* 0 = one per core */
    bool pin_cpus;
    char *user, *group; /* to become after binding; NULL = stay */
    char *control_socket;
    char *log_level;
    char *credentials_file; /* NULL: none */
    char *tls_ca_file;      /* whom tls: verify trusts; NULL: the system's authorities */
    char *letter_keys_file; /* NULL: none */
    struct config_letter_key *letter_keys; /* what was in it, the oldest first */
    size_t letter_keys_len;
    uint32_t drain_timeout_ms;
    uint32_t file_limit; /* RLIMIT_NOFILE wanted; 0 = the hard limit */

    struct {
        char *path;
        uint32_t shards;
        uint64_t map_bytes;
        uint64_t memory_bytes_max;
        uint32_t window_recipients; /* in memory per lane */
        uint64_t intake_bytes_max;
    } queue;
    struct {
        char *path;
        uint64_t segment_bytes_max;
        uint32_t segment_age_s_max;
        bool zstd;
        uint32_t retention_s;
        uint64_t retention_bytes;
        char **headers;
        size_t headers_len;
    } records;
    struct {
        char **servers;
        size_t servers_len;
        uint32_t timeout_ms, tries, cache_entries_max, negative_ttl_max_s, in_flight_max;
        bool ipv6, ipv4, validating;
        uint16_t port; /* of exchangers, and of routes that name no port: 25 */
    } dns;
    struct {
        uint16_t port;
        bool private_addresses;
    } mta_sts;
    struct {
        char *from; /* NULL: no reports are sent */
        char *contact, *organization;
        uint32_t period_s, delay_s;
        uint32_t target_max;
    } tls_reports;
    struct {
        char *postmaster; /* From of notices */
        char *from_name;
        bool return_headers_only;
        uint64_t return_bytes_max;
    } bounce;
    struct {
        bool hard_bounces; /* unknown addresses go on the suppression list */
    } suppression;

    struct {
        char *time_zone;
        uint32_t day_hour, quiet_hours;                                /* a bit per hour */
        uint32_t advance_used;                                         /* percent */
        uint32_t hold[CONFIG_WARMUP_SIGNS], fall[CONFIG_WARMUP_SIGNS]; /* in 1/100 % */
        uint32_t fall_stages, rewarm_after_s;
        struct config_warmup_schedule *schedules;
        struct config_warmup_source *sources, *signers, *campaigns;
        struct config_warmup_provider *providers;
        size_t schedules_len, sources_len, signers_len, campaigns_len, providers_len;
    } warmup;
    struct {
        char *users_file;          /* NULL: none */
        struct config_user *users; /* what was in it */
        size_t users_len;
        bool scram; /* there are users, and each has keys for SCRAM-SHA-256 */
        uint32_t failures_max;
        uint32_t failures_period_ms;
    } auth;
    struct {                                     /* engine/http */
        struct config_address listen;            /* len 0: there is no HTTP */
        bool insecure;                           /* may listen beyond loopback */
        bool unsubscribe;                        /* /u/TOKEN is served */
        char *tokens;                            /* file */
        struct config_network *trusted_networks; /* need no token */
        size_t trusted_networks_len;
        uint64_t body_bytes_max, message_bytes_max;
        uint32_t connections_max, connections_per_client_max;
        uint32_t idle_timeout_ms, request_timeout_ms;
        uint32_t threads;
    } http;
    struct {
        struct config_dkim_key *keys;
        size_t keys_len;
        char *canonicalization; /* "relaxed/relaxed": header, body */
        char **headers;         /* signed beside the usual ones */
        size_t headers_len;
        uint32_t expires_s; /* 0: never */
        char *fallback;     /* domain whose keys sign mail of domains without; or NULL */
        char *platform;     /* domain whose keys sign all mail besides; or NULL */
    } dkim;
    /* What dkim.keys names, once worker/keyring.h has read it; freed with this. */
    struct keyring *keyring;
    void (*keyring_free)(struct keyring *k);

    struct config_rule *rules; /* of the file */
    size_t rules_len;
    struct config_certificate *certificates;
    size_t certificates_len;
    struct config_listener *listeners;
    size_t listeners_len;
    struct config_share *tenants, *campaigns;
    size_t tenants_len, campaigns_len;
    struct config_sender *senders; /* in file order; the first that matches */
    size_t senders_len;
    const char **own_names; /* host_name and those of the listeners; ends with NULL */
    struct config_source *sources;
    size_t sources_len;
    struct config_pool *pools;
    size_t pools_len;
    char *default_pool_name;
    const struct config_pool *default_pool;
    /* Those of the file, then those that are shipped and that it says nothing of. */
    struct config_provider *providers;
    size_t providers_len; /* of the file */
    size_t providers_all;
    struct config_route *routes;
    size_t routes_len;
    struct config_destination
        *destinations; /* in file order, each with every field resolved against the
                          defaults; the last one is the default "*" */
    size_t destinations_len;
};

/* Reads and checks file. On failure *out is untouched, errors has one line for each mistake
 * ("hayauma.yaml:12:5: unknown key 'lisen' in listeners[0]; did you mean 'listen'?"). */
int config_load(const char *file, struct config **out, struct buf *errors) MUST_USE;
/* The same without the files that it names, of which some are only for the engine to read. */
int config_load_file(const char *file, struct config **out, struct buf *errors) MUST_USE;
/* What config_load() does behind that: reads the users, passwords and keys of letters. -errno: at
 * least one of these files is of no use; errors has lines of each that is not. */
int config_load_secrets(struct config *c, struct buf *errors) MUST_USE;
/* The control_socket that file names (to be freed), whatever else is wrong in it: an engine whose
 * file was just spoilt must stay within reach. NULL and lines in errors when it is no YAML. */
char *config_control_socket(const char *file, struct buf *errors);
/* Lines "warning: ..." about what is no mistake and yet hardly meant. as_root: who starts the
 * engine with it is root. */
void config_warnings(const struct config *c, bool as_root, struct buf *out);
/* All defaults and no file; for tests and the quickstart. */
struct config *config_default(void);
struct config *config_ref(struct config *c);
void config_unref(struct config *c);
/* Prints the configuration with every value resolved, as YAML (config show). */
void config_print(const struct config *c, struct buf *out);
/* The reference manual of the schema, Markdown (config docs). */
void config_print_docs(struct buf *out);
/* For a reload, before anybody else sees new: what cannot be applied live keeps its value in old,
 * the running one, and has a line in cannot: "workers: 2 -> 4 needs a restart". */
void config_keep(const struct config *old, struct config *new, struct buf *cannot);

/* NULL: the domain's own exchangers, by no route or by one that says `mx`. */
const struct config_route *config_route_for(const struct config *c, struct str domain);
/* Appends where the route leads, as the file has it. */
void config_print_route(const struct config_route *route, struct buf *out);
/* site may be empty (before routing). */
const struct config_destination *config_destination_for(const struct config *c, struct str domain,
                                                        struct str site);
/* At a site of provider, NULL: nobody known: what no pattern but "*" says is the provider's. */
const struct config_destination *config_destination_at(const struct config *c, struct str domain,
                                                       struct str site,
                                                       const struct config_provider *provider);
/* Who runs the exchanger host, in any case, with or without its final dot: the longest of the names
 * decides. NULL: nobody known. */
const struct config_provider *config_provider_of_host(const struct config *c, struct str host);
/* NULL: there is none of that name. */
const struct config_provider *config_provider_find(const struct config *c, struct str name);
/* Appends "hayauma.yaml:12: auth.users_file", of a key of the file by that name; without the line
 * where the file does not give it. */
void config_place_put(const struct config *c, const char *key, struct buf *out);
/* Appends where the value of key ("rate") in dest comes from: "hayauma.yaml:12
 * (destinations['example.com'].rate)", "profile google (practice: ...)", "default". dest is of c.
 */
void config_origin_put(const struct config *c, const struct config_destination *dest,
                       const char *key, struct buf *out);
/* Visits the limits that dest sets, each with its value as the file writes it, and its origin. */
void config_limits_visit(const struct config *c, const struct config_destination *dest,
                         void (*visit)(void *arg, const char *key, struct str value,
                                       struct str origin),
                         void *arg);
enum config_tls config_tls_of(const struct config_destination *dest);
const char *config_tls_word(enum config_tls tls);
/* Whether TLSA records are looked up, and policies of MTA-STS. */
bool config_tls_has_dane(enum config_tls tls);
bool config_tls_has_sts(enum config_tls tls);
/* The name under which warm-up counts the exchanger host: "google"; "default" of what is none of
 * the known. Constant, or as long as c. */
const char *config_provider_of(const struct config *c, struct str host);
/* Visits these names: shipped, and those of the file. */
void config_providers_visit(const struct config *c,
                            void (*visit)(void *arg, const char *name, const char *mx), void *arg);
/* The rules that may match a reply of code, in the order in which they are asked: those of the
 * file, then those shipped. len 0: there are none, or code is no refusal. */
const struct config_rule *const *config_rules_of(const struct config *c, uint16_t code,
                                                 size_t *len);
/* Visits all, in the same order; those that the file replaces or disables left out. */
void config_rules_visit(const struct config *c,
                        void (*visit)(void *arg, const struct config_rule *rule), void *arg);
/* Whether the rule lowers a limit. */
static inline bool config_rule_lowers(const struct config_rule *r)
{
    return r->rate_messages != 0 || r->sessions_max != 0 || r->session_messages_max != 0;
}
/* Whether rule is about mail to provider by the exchanger host, which may be NULL. */
bool config_rule_is_for(const struct config_rule *rule, const char *provider, const char *host);
/* Whose warm-up is called so: "new" is the source, "signer:example.com" the signing domain,
 * "campaign:spring" the campaign; *plain, which may be NULL, is its name. */
enum config_warmup_kind config_warmup_kind(const char *name, const char **plain);
/* "source", "signer", "campaign". */
const char *config_warmup_kind_name(enum config_warmup_kind kind);
/* Where the configuration sets it: "sources". */
const char *config_warmup_map(enum config_warmup_kind kind);
/* As config_origin_put(), of the entry of that name. */
void config_warmup_origin_put(const struct config *c, enum config_warmup_kind kind,
                              const char *name, struct buf *out);
/* Whether the one of this plain name is being warmed up. */
bool config_warmup_has(const struct config *c, enum config_warmup_kind kind, struct str plain);
/* What holds at a provider for what is called so. False: it is not being warmed up. */
bool config_warmup_policy(const struct config *c, const char *name, const char *provider,
                          struct config_warmup_policy *out);
/* Whether bare CR and LF of this client are repaired: the narrowest network of the listener that
 * has it says so, else the listener. */
bool config_repairs_newlines(const struct config_listener *l, const struct sockaddr *client);
/* NULL: there is none of that name. */
const struct config_user *config_user_find(const struct config *c, struct str name);
/* The user of a certificate, by its fingerprint or by a name that it bears, as tls_shown() gives
 * them; NULL: it is nobody's. */
const struct config_user *config_certificate_user(const struct config *c, struct str certificate);
bool config_is_fingerprint(const char *certificate);
/* Whether clients of the listener are asked for a certificate; whether one that is called so, or
 * CONFIG_ANY_CERTIFICATE, lets them relay. */
#define CONFIG_ANY_CERTIFICATE "*" /* each that an authority vouches for */
bool config_asks_certificate(const struct config_listener *l);
bool config_relays_certificate(const struct config_listener *l, struct str certificate);
/* Whether the envelope's sender, or an address in From, is one of those. domain in A-labels; both
 * empty: the null sender. */
bool config_may_send(const struct config_senders *s, struct str local_part, struct str domain);
bool config_may_write(const struct config_senders *s, struct str local_part, struct str domain);
/* As whom a client may send: the first that says anything of its user, the tenant that all its mail
 * is of, the narrowest network of the listener's clients, the listener. */
struct config_sender_rule {
    const struct config_senders *senders; /* NULL: as anybody */
    const struct config_user *user;       /* one of these */
    const struct config_share *tenant;
    const struct config_client *network;
    const struct config_listener *listener;
};
struct config_sender_question {
    const struct config_user *user;         /* or NULL */
    struct str tenant;                      /* not one that the client chose; or empty */
    const struct config_listener *listener; /* or NULL; of client */
    const struct sockaddr *client;
};
struct config_sender_rule config_sender_rule(const struct config *c,
                                             const struct config_sender_question *q);
/* Whose rule it is: "user shop", "tenant acme", "network 10.0.0.0/8", "listener submission". */
void config_put_sender_rule(const struct config_sender_rule *r, struct buf *out);
/* NULL: there is none of that name. */
const struct config_source *config_source_find(const struct config *c, const char *name);
/* As config_origin_put(), of a key ("rate") of a source of c. */
void config_source_origin_put(const struct config *c, const struct config_source *source,
                              const char *key, struct buf *out);
/* As config_limits_visit(): those that source sets for all sites. */
void config_source_limits_visit(const struct config *c, const struct config_source *source,
                                void (*visit)(void *arg, const char *key, struct str value,
                                              struct str origin),
                                void *arg);
/* Where the source's proxy listens; NULL: it has none. */
static inline const struct config_address *config_source_proxy(const struct config_source *s)
{
    return s->proxy.socks5.len != 0    ? &s->proxy.socks5
           : s->proxy.haproxy.len != 0 ? &s->proxy.haproxy
                                       : NULL;
}
/* "socks5" or "haproxy", as the configuration and records call it. */
static inline const char *config_proxy_word(const struct config_source *s)
{
    return s->proxy.socks5.len != 0 ? "socks5" : "haproxy";
}
/* What decides which pool sends a message. */
struct config_pool_question {
    const struct config_listener *listener; /* or NULL; of client */
    const struct sockaddr *client;
    struct str header; /* what X-Hayauma-Pool names, where the listener lets it; or empty */
    struct str campaign, tenant, sender_domain;
};
/* The name of the pool that a rule chooses: header, campaign, tenant, sender domain, client's
 * network, listener, in this order. Empty: no rule does, the mail goes by default_pool. */
struct str config_pool_chosen(const struct config *c, const struct config_pool_question *q);
/* Appends which rule that is and where it stands: "campaigns['spring'].pool, hayauma.yaml:12". */
void config_pool_rule_put(const struct config *c, const struct config_pool_question *q,
                          struct buf *out);
/* By which pool mail goes that is marked as engaged, where `pool` was chosen for it. */
const struct config_pool *config_pool_engaged(const struct config *c,
                                              const struct config_pool *pool);
/* Appends where pool says so: "pools['bulk'].engaged, hayauma.yaml:9". */
void config_pool_engaged_put(const struct config *c, const struct config_pool *pool,
                             struct buf *out);
/* The pool of this name, or NULL. */
const struct config_pool *config_pool_find(const struct config *c, struct str name);
/* The same, but the default pool where there is none (any more). */
const struct config_pool *config_pool_for(const struct config *c, struct str name);
/* Where there is no entry one of weight 1 that says nothing else. */
/* Of each tenant that has no entry: that of "*", if there is one. */
const struct config_share *config_tenant(const struct config *c, struct str name);
const struct config_share *config_campaign(const struct config *c, struct str name);
/* The rule of senders for mail of this domain, or NULL. */
const struct config_sender *config_sender_for(const struct config *c, struct str domain);
/* The bytes of the key for a campaign that was made at wall_ms: the newest that was in force then,
 * else the oldest; NULL: there are none. */
const uint8_t *config_letter_key(const struct config *c, int64_t wall_ms);
/* One line of the file of letter keys. False: it is none. */
bool config_letter_key_parse(struct str entry, struct config_letter_key *out);
/* What share may send to the site of this name; NULL: as much as others' limits let it. */
const struct config_share_site *config_share_at(const struct config_share *share, struct str site);
/* As config_limits_visit(), of what is set of a tenant or campaign at a site. */
void config_share_limits_visit(
    const struct config *c, const struct config_share *share, const struct config_share_site *at,
    void (*visit)(void *arg, const char *key, struct str value, struct str origin), void *arg);
/* As config_origin_put(), of a key ("rate") of a tenant or campaign at a site. */
void config_share_origin_put(const struct config *c, const struct config_share *share,
                             const struct config_share_site *at, const char *key, struct buf *out);
bool config_network_match(const struct config_network *nets, size_t len,
                          const struct sockaddr *addr);

#endif
