#!/usr/bin/perl
# What Perl's MIME::Parser finds in the message on stdin: as gmime_read.c.
use strict;
use warnings;
use Encode qw(decode);
use JSON::PP;
use Mail::Address;
use MIME::Base64 qw(encode_base64);
use MIME::Parser;

binmode STDIN;
my $parser = MIME::Parser->new;
$parser->output_to_core(1);
$parser->tmp_to_core(1);
my $entity = $parser->parse(\*STDIN);

sub words { my $text = shift; $text =~ s/\r?\n//g; return decode('MIME-Header', $text) }

sub addresses {
    my ($field) = @_;
    my $text = $entity->head->get($field, 0) // '';
    $text =~ s/\r?\n//g;
    return [map {
        my $name = $_->phrase;
        $name =~ s/^"(.*)"$/$1/s;
        $name =~ s/\\(.)/$1/gs;
        ($name eq '' ? undef : words($name), $_->address)
    } Mail::Address->parse($text)];
}

my @parts;

sub walk {
    my ($e) = @_;
    if ($e->parts) { walk($_) for $e->parts; return }
    my $type = $e->mime_type;
    my $body = $e->bodyhandle->as_string;
    my $name = $e->head->recommended_filename;
    $name = words($name) if defined $name;
    my $charset = $e->head->mime_attr('content-type.charset');
    push @parts, [$type, $type =~ m{^text/} ? decode($charset // 'us-ascii', $body) : encode_base64($body, ''), $name];
}
walk($entity);
my $subject = $entity->head->get('Subject', 0) // '';
$subject =~ s/\r?\n\z//;
print JSON::PP->new->utf8->canonical->encode({
    subject => words($subject), from => addresses('From'), to => addresses('To'), parts => \@parts});
