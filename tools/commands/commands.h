/* The sub-commands: mostly one file cmd_<name>.c each, called with "hayauma <name>" as argv[0].
 * They return an exit code and print what goes wrong to stderr as "hayauma <name>: <what>". */
#ifndef HAYAUMA_TOOLS_COMMANDS_H
#define HAYAUMA_TOOLS_COMMANDS_H

#define CONFIG_FILE "/etc/hayauma/hayauma.yaml" /* where none is named */

enum exit_code {
    EXIT_OK = 0,
    EXIT_FAILED = 1,     /* it was tried and did not work */
    EXIT_USAGE = 2,      /* the command line is wrong */
    EXIT_UNREACHABLE = 3 /* no engine answers at the control socket */
};

int cmd_serve(int argc, char **argv);
int cmd_send(int argc, char **argv);
int cmd_send_template(int argc, char **argv);
int cmd_sendmail(int argc, char **argv);
int cmd_queue(int argc, char **argv);
int cmd_campaign(int argc, char **argv);
int cmd_suppress(int argc, char **argv);
int cmd_status(int argc, char **argv);
int cmd_token(int argc, char **argv);
int cmd_config(int argc, char **argv);
int cmd_dkim(int argc, char **argv);
int cmd_letters(int argc, char **argv);
int cmd_reload(int argc, char **argv);
int cmd_stop(int argc, char **argv);
int cmd_user(int argc, char **argv);
int cmd_sink(int argc, char **argv);
int cmd_source(int argc, char **argv);
int cmd_pool(int argc, char **argv);
/* The actions of `hayauma source` that are about the engine's sources, not about load. */
int cmd_sources(int argc, char **argv);
int cmd_site(int argc, char **argv);
int cmd_warmup(int argc, char **argv);
int cmd_feedback(int argc, char **argv);
int cmd_rules(int argc, char **argv);
int cmd_route(int argc, char **argv);
int cmd_trace(int argc, char **argv);
int cmd_why(int argc, char **argv);
int cmd_version(int argc, char **argv);

#endif
