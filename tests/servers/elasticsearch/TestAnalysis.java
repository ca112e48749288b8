package servers;

import java.util.Map;
import java.util.regex.Pattern;
import org.apache.lucene.analysis.TokenStream;
import org.apache.lucene.analysis.email.UAX29URLEmailTokenizer;
import org.apache.lucene.analysis.pattern.PatternCaptureGroupTokenFilter;
import org.elasticsearch.common.settings.Settings;
import org.elasticsearch.index.analysis.AbstractTokenFilterFactory;
import org.elasticsearch.index.analysis.TokenFilterFactory;
import org.elasticsearch.index.analysis.TokenizerFactory;
import org.elasticsearch.indices.analysis.AnalysisModule.AnalysisProvider;
import org.elasticsearch.plugins.AnalysisPlugin;
import org.elasticsearch.plugins.Plugin;

/**
 * The index that holds API keys analyses e-mail addresses with three parts of the analysis module. The distribution
 * for tests comes without that module, so this plug-in names the same parts. No test looks up a key by e-mail; what
 * counts is that the index can be created.
 */
public class TestAnalysis extends Plugin implements AnalysisPlugin {
    /** Captures the groups of the configured patterns. */
    private static final class PatternCapture extends AbstractTokenFilterFactory {
        private final Pattern[] patterns;
        private final boolean preserveOriginal;

        private PatternCapture(String name, Settings settings) {
            super(name, settings);
            patterns = settings.getAsList("patterns").stream().map(Pattern::compile).toArray(Pattern[]::new);
            preserveOriginal = settings.getAsBoolean("preserve_original", true);
        }

        @Override
        public TokenStream create(TokenStream input) {
            return new PatternCaptureGroupTokenFilter(input, preserveOriginal, patterns);
        }
    }

    /** Lets every token through. */
    private static final class PassThrough extends AbstractTokenFilterFactory {
        private PassThrough(String name, Settings settings) {
            super(name, settings);
        }

        @Override
        public TokenStream create(TokenStream input) {
            return input;
        }
    }

    @Override
    public Map<String, AnalysisProvider<TokenFilterFactory>> getTokenFilters() {
        AnalysisProvider<TokenFilterFactory> capture = AnalysisPlugin.requiresAnalysisSettings(
            (index, environment, name, settings) -> new PatternCapture(name, settings));
        return Map.of(
            "pattern_capture", capture,
            "unique", (index, environment, name, settings) -> new PassThrough(name, settings));
    }

    @Override
    public Map<String, AnalysisProvider<TokenizerFactory>> getTokenizers() {
        return Map.of("uax_url_email",
            (index, environment, name, settings) -> TokenizerFactory.newFactory(name, UAX29URLEmailTokenizer::new));
    }
}
