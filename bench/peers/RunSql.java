import java.nio.file.Files;
import java.nio.file.Path;
import org.apache.flink.configuration.GlobalConfiguration;
import org.apache.flink.table.api.EnvironmentSettings;
import org.apache.flink.table.api.TableEnvironment;

/** Runs the statements of a file, which empty lines divide, with the settings of config.yaml in FLINK_CONF_DIR. */
public final class RunSql {
    public static void main(String[] arguments) throws Exception {
        EnvironmentSettings settings =
            EnvironmentSettings.newInstance().withConfiguration(GlobalConfiguration.loadConfiguration()).build();
        TableEnvironment tables = TableEnvironment.create(settings);
        for (String statement : Files.readString(Path.of(arguments[0])).split("\n\n")) {
            tables.executeSql(statement).await(); // an INSERT until its job has ended
        }
    }
}
