package rubrica.interop;

import com.google.gson.Gson;
import eu.europa.esig.dss.enumerations.Indication;
import eu.europa.esig.dss.enumerations.SubIndication;
import eu.europa.esig.dss.jaxb.object.Message;
import eu.europa.esig.dss.model.DSSDocument;
import eu.europa.esig.dss.model.FileDocument;
import eu.europa.esig.dss.service.crl.OnlineCRLSource;
import eu.europa.esig.dss.service.ocsp.OnlineOCSPSource;
import eu.europa.esig.dss.simplereport.SimpleReport;
import eu.europa.esig.dss.simplereport.jaxb.XmlMessage;
import eu.europa.esig.dss.simplereport.jaxb.XmlTimestamp;
import eu.europa.esig.dss.spi.DSSUtils;
import eu.europa.esig.dss.spi.policy.SignaturePolicyProvider;
import eu.europa.esig.dss.spi.validation.CertificateVerifier;
import eu.europa.esig.dss.spi.validation.CommonCertificateVerifier;
import eu.europa.esig.dss.spi.x509.CommonTrustedCertificateSource;
import eu.europa.esig.dss.spi.x509.aia.DefaultAIASource;
import eu.europa.esig.dss.spi.x509.revocation.crl.ExternalResourcesCRLSource;
import eu.europa.esig.dss.validation.SignedDocumentValidator;
import eu.europa.esig.dss.validation.reports.Reports;
import java.io.BufferedReader;
import java.io.File;
import java.io.IOException;
import java.io.InputStreamReader;
import java.io.PrintStream;
import java.net.URI;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.stream.Stream;

/**
 * Judges signed files by EU DSS and its default policy, which nothing here changes.
 *
 * <p>Reads one job a line from standard input and writes one verdict a line to standard output, both JSON, until the
 * input ends. DSS's own reports go, as DSS wrote them, into the folder that the job names.
 */
public final class Judge {
    /**
     * One file to be judged.
     *
     * @param file the signed file
     * @param trust folder; {@code root.pem} in it is the only trust anchor
     * @param content the signed original where the signature is detached, or null
     * @param online scheme, host and port that may be asked for certificates and their state; null to judge offline, with
     *     the lists {@code *.crl} of the trust folder
     * @param reports folder for DSS's reports
     */
    record Job(String file, String trust, String content, String online, String reports) {}

    /** A timestamp of a signature. */
    record Stamp(String indication, String subIndication, List<String> errors, List<String> warnings) {}

    /** What DSS says of one signature. */
    record Finding(
            String indication,
            String subIndication,
            String format,
            String signedBy,
            List<String> errors,
            List<String> warnings,
            List<Stamp> timestamps) {}

    /** The answer to a job; {@code fault} is told when DSS could not read the file at all. */
    record Verdict(String file, List<Finding> signatures, List<String> fetched, List<String> refused, String fault) {}

    private Judge() {}

    /** Runs until the input ends. */
    public static void main(String[] arguments) throws IOException {
        PrintStream answers = new PrintStream(System.out, true, StandardCharsets.UTF_8);
        System.setOut(System.err); // whatever a library prints must not look like a verdict
        Gson gson = new Gson();
        BufferedReader jobs = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
        for (String line = jobs.readLine(); line != null; line = jobs.readLine()) {
            answers.println(gson.toJson(judge(gson.fromJson(line, Job.class))));
        }
    }

    private static Verdict judge(Job job) throws IOException {
        AllowedLoader loader = new AllowedLoader(job.online == null ? null : URI.create(job.online));
        try {
            Reports reports = validate(job, loader);
            keep(reports, Path.of(job.reports));
            return new Verdict(job.file, findings(reports.getSimpleReport()), loader.fetched(), loader.refused(), null);
        } catch (RuntimeException e) {
            return new Verdict(job.file, List.of(), loader.fetched(), loader.refused(), e.toString());
        }
    }

    private static Reports validate(Job job, AllowedLoader loader) throws IOException {
        SignedDocumentValidator validator = SignedDocumentValidator.fromDocument(new FileDocument(job.file));
        validator.setCertificateVerifier(verifier(job, loader));
        // Its own provider would download what a signature policy's address names, wherever that leads.
        SignaturePolicyProvider policies = new SignaturePolicyProvider();
        policies.setDataLoader(loader);
        validator.setSignaturePolicyProvider(policies);
        if (job.content != null) {
            validator.setDetachedContents(List.<DSSDocument>of(new FileDocument(job.content)));
        }
        return validator.validateDocument();
    }

    private static CertificateVerifier verifier(Job job, AllowedLoader loader) throws IOException {
        CommonTrustedCertificateSource anchors = new CommonTrustedCertificateSource();
        anchors.addCertificate(DSSUtils.loadCertificate(new File(job.trust, "root.pem")));
        CertificateVerifier verifier = new CommonCertificateVerifier(true);
        verifier.setTrustedCertSources(anchors);
        if (job.online == null) {
            verifier.setCrlSource(new ExternalResourcesCRLSource(lists(Path.of(job.trust))));
        } else {
            verifier.setAIASource(new DefaultAIASource(loader));
            verifier.setCrlSource(new OnlineCRLSource(loader));
            verifier.setOcspSource(new OnlineOCSPSource(loader));
        }
        return verifier;
    }

    private static DSSDocument[] lists(Path folder) throws IOException {
        try (Stream<Path> files = Files.list(folder)) {
            return files.filter(path -> path.toString().endsWith(".crl"))
                    .sorted()
                    .map(path -> new FileDocument(path.toFile()))
                    .toArray(DSSDocument[]::new);
        }
    }

    private static void keep(Reports reports, Path folder) throws IOException {
        Files.createDirectories(folder);
        Files.writeString(folder.resolve("simple.xml"), reports.getXmlSimpleReport());
        Files.writeString(folder.resolve("detailed.xml"), reports.getXmlDetailedReport());
        Files.writeString(folder.resolve("diagnostic.xml"), reports.getXmlDiagnosticData());
        Files.writeString(folder.resolve("etsi.xml"), reports.getXmlValidationReport());
    }

    private static List<Finding> findings(SimpleReport report) {
        List<Finding> findings = new ArrayList<>();
        for (String id : report.getSignatureIdList()) {
            findings.add(
                    new Finding(
                            word(report.getIndication(id)),
                            word(report.getSubIndication(id)),
                            report.getSignatureFormat(id).toString(),
                            report.getSignedBy(id),
                            report.getAdESValidationErrors(id).stream().map(Message::getValue).toList(),
                            report.getAdESValidationWarnings(id).stream().map(Message::getValue).toList(),
                            report.getSignatureTimestamps(id).stream().map(Judge::stamp).toList()));
        }
        return findings;
    }

    private static Stamp stamp(XmlTimestamp stamp) {
        var details = stamp.getAdESValidationDetails();
        List<XmlMessage> errors = details == null ? List.of() : details.getError();
        List<XmlMessage> warnings = details == null ? List.of() : details.getWarning();
        return new Stamp(
                word(stamp.getIndication()),
                word(stamp.getSubIndication()),
                errors.stream().map(XmlMessage::getValue).toList(),
                warnings.stream().map(XmlMessage::getValue).toList());
    }

    private static String word(Indication indication) {
        return indication == null ? "" : indication.name();
    }

    private static String word(SubIndication subIndication) {
        return subIndication == null ? "" : subIndication.name();
    }
}
