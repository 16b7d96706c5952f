package rubrica.interop;

import eu.europa.esig.dss.spi.client.http.DataLoader;
import eu.europa.esig.dss.spi.exception.DSSExternalResourceException;
import java.io.IOException;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpRequest.BodyPublishers;
import java.net.http.HttpResponse;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;

/** Loads from one address and what lies below it; any other is refused, and so are proxies and redirections. */
final class AllowedLoader implements DataLoader {
    private static final Duration PATIENCE = Duration.ofSeconds(10);

    private final transient HttpClient client =
            HttpClient.newBuilder()
                    .proxy(HttpClient.Builder.NO_PROXY)
                    .followRedirects(HttpClient.Redirect.NEVER)
                    .connectTimeout(PATIENCE)
                    .build();
    private final URI allowed;
    private final List<String> fetched = new ArrayList<>();
    private final List<String> refused = new ArrayList<>();
    private String contentType;

    /**
     * @param allowed scheme, host and port from which everything may be loaded; null for none at all
     */
    AllowedLoader(URI allowed) {
        this.allowed = allowed;
    }

    /** Addresses that were asked, in this order. */
    List<String> fetched() {
        return fetched;
    }

    /** Addresses that a document named and that nobody asked. */
    List<String> refused() {
        return refused;
    }

    @Override
    public byte[] get(String url) {
        return load(url, HttpRequest.newBuilder().GET());
    }

    @Override
    public DataAndUrl get(List<String> urls) {
        DSSExternalResourceException last = new DSSExternalResourceException("no address");
        for (String url : urls) {
            try {
                return new DataAndUrl(url, get(url));
            } catch (DSSExternalResourceException e) {
                last = e;
            }
        }
        throw last;
    }

    @Override
    public byte[] post(String url, byte[] content) {
        HttpRequest.Builder request = HttpRequest.newBuilder().POST(BodyPublishers.ofByteArray(content));
        if (contentType != null) {
            request.header("Content-Type", contentType);
        }
        return load(url, request);
    }

    @Override
    public void setContentType(String contentType) {
        this.contentType = contentType;
    }

    private byte[] load(String url, HttpRequest.Builder request) {
        URI address = addressOf(url);
        if (!isAllowed(address)) {
            refused.add(url);
            throw new DSSExternalResourceException("not allowed: " + url);
        }
        fetched.add(url);
        try {
            HttpResponse<byte[]> answer =
                    client.send(
                            request.uri(address).timeout(PATIENCE).build(),
                            HttpResponse.BodyHandlers.ofByteArray());
            if (answer.statusCode() != 200) {
                throw new DSSExternalResourceException(url + " answers " + answer.statusCode());
            }
            return answer.body();
        } catch (IOException e) {
            throw new DSSExternalResourceException(url + " does not answer", e);
        } catch (InterruptedException e) {
            Thread.currentThread().interrupt();
            throw new DSSExternalResourceException(url + " was given up", e);
        }
    }

    private static URI addressOf(String url) {
        try {
            return URI.create(url);
        } catch (IllegalArgumentException e) {
            return null;
        }
    }

    /** Compared by parts: a text that merely begins alike may lead to another host. */
    private boolean isAllowed(URI address) {
        return allowed != null
                && address != null
                && allowed.getScheme().equals(address.getScheme())
                && allowed.getHost().equals(address.getHost())
                && allowed.getPort() == address.getPort()
                && address.getUserInfo() == null;
    }
}
