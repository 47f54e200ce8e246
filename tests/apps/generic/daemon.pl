# Echoes what it was asked; one request at a time, on a connection that is kept.
use strict;
use warnings;
use HTTP::Daemon;
use HTTP::Response;

my $daemon = HTTP::Daemon->new(LocalAddr => "127.0.0.1", LocalPort => $ENV{PORT}, ReuseAddr => 1, Listen => 64) or die "cannot listen: $!";
$SIG{TERM} = sub { exit 0 };
while (my $client = $daemon->accept) {
    while (my $request = $client->get_request) {
        my $text = $request->uri eq "/stream"
            ? "one two three"
            : join " ", $request->method, $request->uri, length($request->content), $request->header("X-Forwarded-For");
        my $response = HTTP::Response->new(200, "OK", ["Content-Type" => "text/plain", "Content-Length" => length $text]);
        $response->content($text);
        $client->send_response($response);
    }
    $client->close;
}
