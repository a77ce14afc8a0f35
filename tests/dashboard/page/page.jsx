// Draws the dashboard with Grafana's own components (@grafana/ui, @grafana/data): what they do with units, thresholds,
// colours, legends and axes is what a Grafana of their version does. Ours are the arrangement on the page and the little
// that Grafana keeps to itself: reading Prometheus's answers, and the defaults of its panels.
// CommonJS, because what esbuild makes of the others' default exports depends on it.
require("@fontsource/inter/400.css");
require("@fontsource/inter/500.css");
const {
  applyFieldOverrides,
  createTheme,
  dateTime,
  EventBusSrv,
  FieldColorModeId,
  FieldType,
  getFieldDisplayValues,
  identityOverrideProcessor,
  Registry,
  standardFieldConfigEditorRegistry,
  ThemeContext,
  toDataFrame,
} = require("@grafana/data");
const { BigValue, GlobalStyles, PanelChrome, PanelContextProvider, Table, TimeSeries } = require("@grafana/ui");
const { createRoot } = require("react-dom/client");

const ROW_PIXELS = 30;
const GAP_PIXELS = 8;
const theme = createTheme({ colors: { mode: "light" } });
const eventBus = new EventBusSrv();
const replaceVariables = (text) => text;

// --- how fields are configured ---------------------------------------------------------------------------------------
const property = (id, path, isCustom) => ({
  id, path, isCustom, name: id, process: identityOverrideProcessor, shouldApply: () => true,
});
const STANDARD = ["unit", "min", "max", "decimals", "displayName", "color", "thresholds", "mappings", "noValue", "links"];
const CUSTOM = ["lineWidth", "fillOpacity", "showPoints", "stacking", "axisPlacement", "drawStyle", "lineInterpolation", "axisSoftMax"];
const properties = [
  ...STANDARD.map((id) => property(id, id, false)),
  ...CUSTOM.map((id) => property(`custom.${id}`, id, true)),
];
standardFieldConfigEditorRegistry.setInit(() => properties.slice(0, STANDARD.length));
const fieldConfigRegistry = new Registry(() => properties);

const LINES = {
  drawStyle: "line",
  lineInterpolation: "linear",
  lineStyle: { fill: "solid" },
  lineWidth: 1,
  fillOpacity: 0,
  gradientMode: "none",
  spanNulls: false,
  insertNulls: false,
  showPoints: "auto",
  pointSize: 5,
  stacking: { mode: "none", group: "A" },
  axisPlacement: "auto",
  axisLabel: "",
  axisColorMode: "text",
  axisBorderShow: false,
  axisCenteredZero: false,
  scaleDistribution: { type: "linear" },
  hideFrom: { legend: false, tooltip: false, viz: false },
  thresholdsStyle: { mode: "off" },
};

function configured(panel, frames) {
  const defaults = panel.fieldConfig?.defaults ?? {};
  const custom = panel.type === "timeseries" ? { ...LINES, ...defaults.custom } : defaults.custom;
  const color = panel.type === "timeseries" ? FieldColorModeId.PaletteClassic : FieldColorModeId.Thresholds;
  const thresholds = { mode: "absolute", steps: [{ color: "green", value: -Infinity }, { color: "red", value: 80 }] };
  const withDefaults = { color: { mode: color }, thresholds, ...defaults, custom };
  const steps = withDefaults.thresholds.steps.map((step) => ({ ...step, value: step.value ?? -Infinity }));
  withDefaults.thresholds = { ...withDefaults.thresholds, steps };
  return applyFieldOverrides({
    data: frames,
    fieldConfig: { defaults: withDefaults, overrides: panel.fieldConfig?.overrides ?? [] },
    fieldConfigRegistry,
    replaceVariables,
    theme,
    timeZone: "utc",
  });
}

// --- Prometheus's answers as frames ----------------------------------------------------------------------------------
const number = (text) => (text === "NaN" ? null : Number(text));
const legend = (format, labels) => (format || "").replace(/\{\{\s*(\w+)\s*\}\}/g, (_, name) => labels[name] ?? "");

function frame(target, series) {
  const name = legend(target.legendFormat, series.metric) || JSON.stringify(series.metric);
  return toDataFrame({
    refId: target.refId,
    name,
    fields: [
      { name: "Time", type: FieldType.time, values: series.values.map(([time]) => time * 1000), config: {} },
      {
        name: "Value",
        type: FieldType.number,
        labels: series.metric,
        values: series.values.map(([, value]) => number(value)),
        config: { displayNameFromDS: name },
      },
    ],
  });
}

// a table has a column for each label; what "organize" does with them is applied here
function tabular(panel) {
  const [target] = panel.targets;
  const labels = [...new Set(target.results.flatMap((series) => Object.keys(series.metric)))].sort();
  const options = panel.transformations?.find((one) => one.id === "organize")?.options ?? {};
  const columns = [
    { name: "Time", type: FieldType.time, values: target.results.map((series) => series.values[0][0] * 1000) },
    ...labels.map((name) => ({
      name, type: FieldType.string, values: target.results.map((series) => series.metric[name]),
    })),
    { name: "Value", type: FieldType.number, values: target.results.map((series) => number(series.values[0][1])) },
  ];
  const fields = columns
    .filter((column) => !options.excludeByName?.[column.name])
    .map((column) => ({ ...column, config: {}, name: options.renameByName?.[column.name] ?? column.name }));
  return toDataFrame({ refId: target.refId, fields });
}

const frames = (panel) => panel.targets.flatMap((target) => target.results.map((series) => frame(target, series)));

// --- panels ----------------------------------------------------------------------------------------------------------
const board = window.answers;
const timeRange = {
  from: dateTime(board.start * 1000),
  to: dateTime(board.end * 1000),
  raw: { from: dateTime(board.start * 1000), to: dateTime(board.end * 1000) },
};

function Stat({ panel, width, height }) {
  const options = panel.options;
  const [value] = getFieldDisplayValues({
    data: configured(panel, frames(panel)),
    fieldConfig: panel.fieldConfig,
    reduceOptions: options.reduceOptions,
    replaceVariables,
    sparkline: options.graphMode !== "none",
    theme,
    timeZone: "utc",
  });
  return (
    <BigValue
      value={value.display}
      sparkline={value.sparkline}
      colorMode={options.colorMode}
      graphMode={options.graphMode}
      justifyMode={options.justifyMode ?? "auto"}
      textMode={options.textMode}
      width={width}
      height={height}
      theme={theme}
    />
  );
}

// a dashed line where an annotation begins, as Grafana draws it
function annotated(builder) {
  builder.addHook("draw", (plot) => {
    const { left, top, height, width } = plot.bbox;
    plot.ctx.save();
    for (const annotation of board.annotations.list) {
      for (const time of annotation.times) {
        const x = plot.valToPos(time * 1000, "x", true);
        if (x >= left && x <= left + width) {
          plot.ctx.strokeStyle = theme.visualization.getColorByName(annotation.iconColor);
          plot.ctx.lineWidth = devicePixelRatio;
          plot.ctx.setLineDash([5, 5]);
          plot.ctx.beginPath();
          plot.ctx.moveTo(x, top);
          plot.ctx.lineTo(x, top + height);
          plot.ctx.stroke();
        }
      }
    }
    plot.ctx.restore();
  });
  return null;
}

function Series({ panel, width, height }) {
  const { showLegend = true, ...shown } = panel.options.legend;
  return (
    <TimeSeries
      frames={configured(panel, frames(panel))}
      width={width}
      height={height}
      timeRange={timeRange}
      timeZone="utc"
      legend={{ ...shown, showLegend }}
    >
      {annotated}
    </TimeSeries>
  );
}

function Rows({ panel, width, height }) {
  const [data] = configured(panel, [tabular(panel)]);
  const [sorting] = panel.options.sortBy ?? [];
  const by = data.fields.find((field) => field.name === sorting?.displayName);
  if (by) {
    const order = by.values.map((value, index) => [value, index]).sort(([a], [b]) => (sorting.desc ? b - a : a - b));
    for (const field of data.fields) {
      field.values = order.map(([, index]) => field.values[index]);
    }
  }
  return <Table data={data} width={width} height={height} initialSortBy={[]} />;
}

const KINDS = { stat: Stat, timeseries: Series, table: Rows };

function place({ x, y, w, h }) {
  return {
    position: "absolute",
    left: x * board.columnPixels + GAP_PIXELS / 2,
    top: y * (ROW_PIXELS + GAP_PIXELS),
    width: w * board.columnPixels - GAP_PIXELS,
    height: h * (ROW_PIXELS + GAP_PIXELS) - GAP_PIXELS,
  };
}

function Panel({ panel }) {
  const style = place(panel.gridPos);
  if (panel.type === "row") {
    const title = { ...style, ...theme.typography.h6, lineHeight: `${style.height}px`, color: theme.colors.text.primary };
    return <div style={title}>⌄ &nbsp;{panel.title}</div>;
  }
  const Kind = KINDS[panel.type];
  return (
    <div style={style}>
      <PanelChrome title={panel.title} width={style.width} height={style.height} padding={panel.type === "table" ? "none" : "md"}>
        {(width, height) => <Kind panel={panel} width={width} height={height} />}
      </PanelChrome>
    </div>
  );
}

function Choice({ name, value }) {
  const box = { border: `1px solid ${theme.colors.border.medium}`, borderRadius: 2, display: "inline-flex", marginRight: 8 };
  const part = { padding: "0 8px", lineHeight: "30px", fontSize: 13 };
  return (
    <span style={box}>
      <span style={{ ...part, fontWeight: 500, borderRight: box.border }}>{name}</span>
      <span style={{ ...part, background: theme.components.input.background }}>{value}</span>
    </span>
  );
}

function Board() {
  const lowest = Math.max(...board.panels.map(({ gridPos }) => gridPos.y + gridPos.h));
  const height = lowest * (ROW_PIXELS + GAP_PIXELS);
  const bar = { display: "flex", padding: `8px ${GAP_PIXELS / 2}px`, color: theme.colors.text.primary };
  const range = [timeRange.from, timeRange.to].map((time) => time.utc().format("YYYY-MM-DD HH:mm:ss")).join(" to ");
  return (
    <ThemeContext.Provider value={theme}>
      <GlobalStyles />
      <PanelContextProvider value={{ eventsScope: "", eventBus, canAddAnnotations: () => false }}>
        <div style={bar}>
          {board.templating.list.map(({ name, label, shown }) => <Choice key={name} name={label ?? name} value={shown} />)}
          <span style={{ marginLeft: "auto" }}><Choice name="UTC" value={range} /></span>
        </div>
        <div style={{ position: "relative", height, width: 24 * board.columnPixels }}>
          {board.panels.map((panel) => <Panel key={panel.id} panel={panel} />)}
        </div>
      </PanelContextProvider>
    </ThemeContext.Provider>
  );
}

createRoot(document.getElementById("root")).render(<Board />);
