import io.delta.kernel.Scan;
import io.delta.kernel.Snapshot;
import io.delta.kernel.Table;
import io.delta.kernel.data.ColumnarBatch;
import io.delta.kernel.data.FilteredColumnarBatch;
import io.delta.kernel.data.Row;
import io.delta.kernel.defaults.engine.DefaultEngine;
import io.delta.kernel.engine.Engine;
import io.delta.kernel.internal.InternalScanFileUtils;
import io.delta.kernel.internal.data.ScanStateRow;
import io.delta.kernel.internal.util.Utils;
import io.delta.kernel.types.*;
import io.delta.kernel.utils.CloseableIterator;
import java.io.BufferedReader;
import java.io.BufferedWriter;
import java.io.IOException;
import java.io.InputStreamReader;
import java.io.OutputStreamWriter;
import java.io.Writer;
import java.nio.charset.StandardCharsets;
import java.util.HexFormat;
import java.util.Optional;
import org.apache.hadoop.conf.Configuration;

/**
 * Reads Delta tables through Delta Kernel, as lake_rows.py asks: a table's folder a line on stdin; on stdout, in lines of JSON, the
 * names of its columns, each live row, and the number of rows, or why it can't be read.
 *
 * <p>Dates are days, timestamps microseconds; decimals are text, binary values hexadecimal text.
 */
public final class KernelRows {
  private final Engine engine = DefaultEngine.create(new Configuration());
  private final Writer out;

  private KernelRows(Writer out) {
    this.out = out;
  }

  public static void main(String[] arguments) throws IOException {
    Writer out = new BufferedWriter(new OutputStreamWriter(System.out, StandardCharsets.UTF_8), 1 << 16);
    KernelRows kernel = new KernelRows(out);
    BufferedReader in = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
    for (String folder = in.readLine(); folder != null; folder = in.readLine()) {
      try {
        long rows = kernel.read(folder);
        out.write("{\"rows\":" + rows + "}\n");
      } catch (Exception error) {
        out.write("{\"error\":");
        kernel.text(error.toString());
        out.write("}\n");
      }
      out.flush();
    }
  }

  private long read(String folder) throws IOException {
    Snapshot snapshot = Table.forPath(engine, folder).getLatestSnapshot(engine);
    StructType schema = snapshot.getSchema();
    out.write("{\"columns\":[");
    for (int i = 0; i < schema.length(); i++) {
      if (i > 0) out.write(',');
      text(schema.at(i).getName());
    }
    out.write("]}\n");
    Scan scan = snapshot.getScanBuilder().build();
    Row state = scan.getScanState(engine);
    StructType physical = ScanStateRow.getPhysicalDataReadSchema(engine, state);
    long rows = 0;
    try (CloseableIterator<FilteredColumnarBatch> files = scan.getScanFiles(engine)) {
      while (files.hasNext()) {
        try (CloseableIterator<Row> entries = files.next().getRows()) {
          while (entries.hasNext()) {
            rows += readFile(state, entries.next(), physical);
          }
        }
      }
    }
    return rows;
  }

  private long readFile(Row state, Row entry, StructType physical) throws IOException {
    CloseableIterator<ColumnarBatch> stored =
        engine
            .getParquetHandler()
            .readParquetFiles(
                Utils.singletonCloseableIterator(InternalScanFileUtils.getAddFileStatus(entry)), physical, Optional.empty());
    long rows = 0;
    try (CloseableIterator<FilteredColumnarBatch> batches = Scan.transformPhysicalData(engine, state, entry, stored)) {
      while (batches.hasNext()) {
        try (CloseableIterator<Row> live = batches.next().getRows()) {
          for (; live.hasNext(); rows++) row(live.next());
        }
      }
    }
    return rows;
  }

  private void row(Row row) throws IOException {
    StructType schema = row.getSchema();
    out.write('[');
    for (int i = 0; i < schema.length(); i++) {
      if (i > 0) out.write(',');
      if (row.isNullAt(i)) out.write("null");
      else value(row, i, schema.at(i).getDataType());
    }
    out.write("]\n");
  }

  private void value(Row row, int i, DataType type) throws IOException {
    if (type instanceof BooleanType) out.write(String.valueOf(row.getBoolean(i)));
    else if (type instanceof ByteType) out.write(String.valueOf(row.getByte(i)));
    else if (type instanceof ShortType) out.write(String.valueOf(row.getShort(i)));
    else if (type instanceof IntegerType || type instanceof DateType) out.write(String.valueOf(row.getInt(i)));
    else if (type instanceof LongType || type instanceof TimestampType || type instanceof TimestampNTZType)
      out.write(String.valueOf(row.getLong(i)));
    else if (type instanceof FloatType) out.write(String.valueOf((double) row.getFloat(i)));
    else if (type instanceof DoubleType) out.write(String.valueOf(row.getDouble(i)));
    else if (type instanceof DecimalType) text(row.getDecimal(i).toPlainString());
    else if (type instanceof StringType) text(row.getString(i));
    else if (type instanceof BinaryType) text(HexFormat.of().formatHex(row.getBinary(i)));
    else throw new IOException("no rule for " + type);
  }

  private void text(String text) throws IOException {
    out.write('"');
    for (int i = 0; i < text.length(); i++) {
      char c = text.charAt(i);
      if (c == '"' || c == '\\') {
        out.write('\\');
        out.write(c);
      } else if (c < 0x20) {
        out.write(String.format("\\u%04x", (int) c));
      } else {
        out.write(c);
      }
    }
    out.write('"');
  }
}
