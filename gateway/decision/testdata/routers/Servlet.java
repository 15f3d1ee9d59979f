import jakarta.servlet.http.HttpServlet;
import jakarta.servlet.http.HttpServletRequest;
import jakarta.servlet.http.HttpServletResponse;
import java.io.IOException;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.util.Map;
import java.util.concurrent.ConcurrentHashMap;
import org.apache.catalina.startup.Tomcat;

/**
 * Routes calls by the path as Tomcat tells it to a servlet, and answers with the template that ran. PUT sets the
 * templates of the table in X-Table, one a line.
 */
public class Servlet extends HttpServlet {
    private final Map<String, String[]> tables = new ConcurrentHashMap<>();

    @Override
    protected void service(HttpServletRequest request, HttpServletResponse response) throws IOException {
        String table = request.getHeader("X-Table");
        if (request.getMethod().equals("PUT")) {
            String text = new String(request.getInputStream().readAllBytes(), StandardCharsets.UTF_8);
            tables.put(table, text.split("\n"));
            return;
        }
        String rest = request.getPathInfo();
        String path = request.getServletPath() + (rest == null ? "" : rest);
        for (String template : tables.get(table)) {
            if (matches(template.split("/", -1), path.split("/", -1))) {
                response.setHeader("Template", template);
                return;
            }
        }
        response.setStatus(404);
    }

    /** A final slash does not count, as in Spring until its version 6. */
    private static boolean matches(String[] template, String[] path) {
        int n = path.length;
        if (n > 2 && path[n - 1].isEmpty()) {
            n--;
        }
        for (int i = 1; i < template.length; i++) {
            if (template[i].equals("*") && i == template.length - 1) {
                return true;
            }
            if (i >= n || !(template[i].startsWith("{") ? !path[i].isEmpty() : template[i].equals(path[i]))) {
                return false;
            }
        }
        return n == template.length;
    }

    public static void main(String[] args) throws Exception {
        java.util.logging.LogManager.getLogManager().reset();
        Tomcat tomcat = new Tomcat();
        tomcat.setBaseDir(args[0]);
        tomcat.setHostname("127.0.0.1");
        tomcat.setPort(0);
        tomcat.getConnector().setProperty("address", "127.0.0.1");
        tomcat.getConnector().setProperty("maxKeepAliveRequests", "-1");
        var context = tomcat.addContext("", Files.createTempDirectory(java.nio.file.Path.of(args[0]), "root").toString());
        Tomcat.addServlet(context, "routes", new Servlet());
        context.addServletMappingDecoded("/", "routes");
        tomcat.start();
        System.out.println(tomcat.getConnector().getLocalPort());
        tomcat.getServer().await();
    }
}
