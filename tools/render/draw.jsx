// Draws the dashboard in `window.recorded` (written by render.py) with Grafana's own components. What is done here
// is what Grafana's page and its panel plugins do around them: the grid, frames from answers, options to properties.
import {
  applyFieldOverrides, createDataFrame, createTheme, dateTime, FieldType,
  getDisplayValueAlignmentFactors, getFieldDisplayValues, Registry, ThemeContext,
} from '@grafana/data';
import { BarGauge, BigValue, GlobalStyles, PanelChrome, Table, TimeSeries, VizRepeater } from '@grafana/ui';
import '@fontsource/inter/400.css';
import '@fontsource/inter/500.css';
import { createRoot } from 'react-dom/client';

const { dashboard, answers, marked, start, end, texts } = window.recorded;
const CELL_HEIGHT = 30;
const CELL_MARGIN = 8;
const COLUMNS = 24;
const HEADER_HEIGHT = 56;

const theme = createTheme({ colors: { mode: 'dark' } });
const rangeOf = (panel) => {
  const { span } = answers[`${panel.id}/A`];
  const range = { from: dateTime((end - span) * 1000), to: dateTime(end * 1000) };
  return { ...range, raw: range };
};
const asIs = (value) => value;
// What Grafana puts in for variables, in the places where it does: titles, legends and names of fields.
const withTexts = (text = '') =>
  Object.keys(texts).sort((a, b) => b.length - a.length).reduce((so, name) => so.replaceAll(name, texts[name]), text);
const process = (value) => (typeof value === 'string' ? withTexts(value) : value);

// Every setting a field may have here; applied by Grafana's own defaults-then-overrides.
const settings = [
  'unit', 'min', 'max', 'decimals', 'displayName', 'noValue', 'color', 'thresholds', 'mappings',
  ...[
    'axisPlacement', 'axisLabel', 'axisSoftMin', 'axisSoftMax', 'axisColorMode', 'axisGridShow', 'barAlignment',
    'drawStyle', 'fillOpacity', 'gradientMode', 'hideFrom', 'lineInterpolation', 'lineStyle', 'lineWidth',
    'align', 'cellOptions', 'filterable', 'inspect', 'width', 'pointSize', 'scaleDistribution', 'showPoints', 'spanNulls', 'stacking', 'thresholdsStyle',
  ].map((name) => `custom.${name}`),
];
const fieldConfigRegistry = new Registry(() =>
  settings.map((id) => ({
    id, name: id, path: id.replace('custom.', ''), isCustom: id.startsWith('custom.'),
    process: id === 'displayName' ? process : asIs, shouldApply: () => true, settings: {},
  }))
);

const clock = (seconds) => new Date(seconds * 1000).toISOString().slice(11, 19);

const legendOf = (target, { __name__: name = '', ...labels }) => {
  if (target.legendFormat !== '__auto') {
    return withTexts(target.legendFormat).replace(/\{\{\s*(\w+)\s*\}\}/g, (_, label) => labels[label] ?? '');
  }
  const pairs = Object.entries(labels).map(([label, value]) => `${label}="${value}"`);
  return pairs.length ? `${name}{${pairs.join(', ')}}` : name || target.expr;
};

const framesOf = (panel) => {
  const frames = panel.targets.flatMap((target) => {
    const { step, series } = answers[`${panel.id}/${target.refId}`];
    return series.map(({ metric, value, values = [value] }) =>
      createDataFrame({
        refId: target.refId,
        fields: [
          { name: 'Time', type: FieldType.time, values: values.map(([at]) => at * 1000), config: { interval: step * 1000 } },
          {
            // Colours by name are taken from the legend, which this component loses on the way, or else from here.
            name: legendOf(target, metric), type: FieldType.number, values: values.map(([, number]) => Number(number)),
            config: { displayNameFromDS: legendOf(target, metric) },
          },
        ],
      })
    );
  });
  const { fieldConfig } = panel;
  return applyFieldOverrides({ data: frames, fieldConfig, fieldConfigRegistry, theme, replaceVariables: asIs, timeZone: 'utc' });
};

// What the transformations `merge` and `organize` make of the answers to a table's queries.
const tableOf = (panel) => {
  const { indexByName, renameByName } = panel.transformations[1].options;
  const single = panel.targets.length === 1;
  const rows = new Map();
  for (const { refId } of panel.targets) {
    for (const { metric, value } of answers[`${panel.id}/${refId}`].series) {
      const key = JSON.stringify(Object.entries(metric).sort());
      rows.set(key, { ...(rows.get(key) ?? metric), [single ? 'Value' : `Value #${refId}`]: Number(value[1]) });
    }
  }
  const names = Object.keys(indexByName).sort((a, b) => indexByName[a] - indexByName[b]);
  const sorted = [...rows.values()];
  const by = names.find((name) => renameByName[name] === panel.options.sortBy?.[0]?.displayName);
  if (by) {
    sorted.sort((a, b) => b[by] - a[by]);
  }
  const fields = names.map((name) => ({
    name: renameByName[name], type: name.startsWith('Value') ? FieldType.number : FieldType.string,
    values: sorted.map((row) => row[name] ?? (name.startsWith('Value') ? null : '')), config: {},
  }));
  const { fieldConfig } = panel;
  return applyFieldOverrides({
    data: [createDataFrame({ fields })], fieldConfig, fieldConfigRegistry, theme, replaceVariables: asIs, timeZone: 'utc',
  })[0];
};

const displayValues = (panel, data) =>
  getFieldDisplayValues({
    data, theme, fieldConfig: panel.fieldConfig, reduceOptions: panel.options.reduceOptions,
    replaceVariables: asIs, timeZone: 'utc',
  });

const Values = ({ panel, data, width, height, draw }) => (
  <VizRepeater
    source={data} getValues={() => displayValues(panel, data)} renderCounter={1} width={width} height={height}
    orientation={panel.options.orientation ?? 'auto'} minVizHeight={panel.options.minVizHeight ?? 16}
    maxVizHeight={panel.options.maxVizHeight ?? 300} itemSpacing={8}
    getAlignmentFactors={getDisplayValueAlignmentFactors} renderValue={draw}
  />
);

// Annotations, as Grafana's page draws them: a dashed line where one begins, and a bar below for as long as it lasts.
const spansOf = ({ step, series }) =>
  series.flatMap(({ values }) =>
    values.reduce((spans, [at]) => {
      const last = spans.at(-1);
      return last && at - last.to <= step ? [...spans.slice(0, -1), { ...last, to: at }] : [...spans, { from: at, to: at }];
    }, [])
  );
const withMarks = (config) =>
  config.addHook('draw', (plot) => {
    const { left, top, width, height } = plot.bbox;
    const pixels = window.devicePixelRatio;
    const xOf = (at) => Math.min(left + width, Math.max(left, plot.valToPos(at * 1000, 'x', true)));
    for (const mark of marked) {
      const color = theme.visualization.getColorByName(mark.color);
      for (const { from, to } of spansOf(mark)) {
        if (to < plot.scales.x.min / 1000 || from > plot.scales.x.max / 1000) {
          continue;
        }
        plot.ctx.save();
        Object.assign(plot.ctx, { strokeStyle: color, fillStyle: color, lineWidth: pixels });
        plot.ctx.fillRect(xOf(from), top + height, Math.max(3 * pixels, xOf(to) - xOf(from)), 4 * pixels);
        plot.ctx.setLineDash([4 * pixels, 4 * pixels]);
        plot.ctx.beginPath();
        plot.ctx.moveTo(xOf(from), top);
        plot.ctx.lineTo(xOf(from), top + height);
        plot.ctx.stroke();
        plot.ctx.restore();
      }
    }
  });

const panels = {
  stat: ({ panel, ...rest }) => (
    <Values panel={panel} {...rest} draw={({ value, alignmentFactors, width, height, count }) => (
      <BigValue
        value={value.display} count={count} alignmentFactors={alignmentFactors} width={width} height={height} theme={theme}
        text={panel.options.text} colorMode={panel.options.colorMode} graphMode={panel.options.graphMode}
        justifyMode={panel.options.justifyMode} textMode={panel.options.textMode}
      />
    )} />
  ),
  bargauge: ({ panel, ...rest }) => (
    <Values panel={panel} {...rest} draw={({ value, alignmentFactors, orientation, width, height }) => (
      <BarGauge
        value={value.display} field={value.field} display={value.view?.getFieldDisplayProcessor(value.colIndex)}
        alignmentFactors={alignmentFactors} orientation={orientation} width={width} height={height} theme={theme}
        text={panel.options.text} displayMode={panel.options.displayMode} valueDisplayMode={panel.options.valueMode}
        namePlacement={panel.options.namePlacement} showUnfilled={panel.options.showUnfilled} itemSpacing={8} lcdCellWidth={12}
      />
    )} />
  ),
  table: ({ data, width, height, panel }) => (
    <Table data={data[0]} width={width} height={height} columnMinWidth={60} cellHeight={panel.options.cellHeight} showTypeIcons={false} initialSortBy={[]} />
  ),
  timeseries: ({ panel, data, width, height }) => (
    <TimeSeries
      frames={data} timeRange={rangeOf(panel)} timeZone="utc" width={width} height={height}
      legend={panel.options.legend} options={panel.options}
    >
      {(config) => { withMarks(config); return null; }}
    </TimeSeries>
  ),
};

// Grafana publishes no component for the following two.
const AXIS_HEIGHT = 22;
const LEGEND_HEIGHT = 24;
const HOURS = 6;
const TimeAxis = ({ left, width, y }) => {
  const marks = [];
  for (let at = Math.ceil(start / 1800 / HOURS) * HOURS * 1800; at <= end; at += HOURS / 2 * 3600) {
    const x = left + ((at - start) / (end - start)) * width;
    marks.push(<text key={at} x={x} y={y} fill={theme.colors.text.secondary} fontSize="12" textAnchor={at === end ? 'end' : 'middle'}>{clock(at).slice(0, 5)}</text>);
  }
  return marks;
};

const merged = (spans) =>
  spans.reduce((so, span) => {
    const last = so.at(-1);
    return last && last.state === span.state && last.to === span.from ? [...so.slice(0, -1), { ...last, to: span.to }] : [...so, span];
  }, []);

const stateTimeline = ({ panel, data, width, height }) => {
  const left = Math.min(0.45 * width, 12 + 6.6 * Math.max(...data.map((frame) => frame.fields[1].config.displayNameFromDS.length)));
  const inner = width - left - 8;
  const row = (height - AXIS_HEIGHT - LEGEND_HEIGHT) / data.length;
  const seen = new Map();
  const bands = data.flatMap((frame, index) => {
    const [time, field] = frame.fields;
    const step = time.config.interval / 1000;
    const name = field.config.displayNameFromDS;
    return [
      <text key={name} x={left - 8} y={(index + 0.5) * row + 4} fill={theme.colors.text.primary} fontSize="12" textAnchor="end">{name}</text>,
      ...merged(field.values.map((value, at) => ({ value, state: field.display(value).color, from: time.values[at] / 1000, to: time.values[at] / 1000 + step }))).map(({ value, from, to }) => {
        const shown = field.display(value);
        const begin = Math.max(start, from);
        const until = Math.min(end, to);
        const at = from;
        const { steps } = panel.fieldConfig.defaults.thresholds;
        const numbers = steps.map((one) => one.value ?? -Infinity);
        const level = steps.findLastIndex((one) => value >= (one.value ?? -Infinity));
        const band = numbers[level + 1] === undefined ? `${numbers[level]} and more` : `${numbers[level]} to ${numbers[level + 1]}`;
        seen.set(level, { label: panel.fieldConfig.defaults.mappings.length ? shown.text : band, color: shown.color });
        return <rect key={`${name}${at}`} x={left + ((begin - start) / (end - start)) * inner} y={index * row + row * 0.1}
          width={Math.max(0, ((until - begin) / (end - start)) * inner)} height={row * 0.8} fill={shown.color} fillOpacity="0.8" />;
      }),
    ];
  });
  const legend = [...seen.entries()].sort((a, b) => a[0] - b[0]).map(([, { label, color }]) => (
    <span key={label} style={{ marginRight: 16 }}><span style={{ background: color, display: 'inline-block', width: 14, height: 4, marginRight: 8, verticalAlign: 'middle' }} />{label}</span>
  ));
  return (
    <div style={{ fontSize: 12 }}>
      <svg width={width} height={height - LEGEND_HEIGHT}>{bands}<TimeAxis left={left} width={inner} y={height - LEGEND_HEIGHT - 6} /></svg>
      <div style={{ paddingLeft: 8 }}>{legend}</div>
    </div>
  );
};

const heatmap = ({ panel, data, width, height }) => {
  const left = 56;
  const inner = width - left - 8;
  const above = (frame) => Number(frame.fields[1].config.displayNameFromDS.replace('+Inf', 'Infinity'));
  const sorted = [...data].sort((a, b) => above(a) - above(b));
  const row = (height - AXIS_HEIGHT) / sorted.length;
  const counts = sorted.map((frame, index) =>
    frame.fields[1].values.map((value, at) => value - (index ? sorted[index - 1].fields[1].values[at] ?? 0 : 0))
  );
  const most = Math.max(...counts.flat());
  return (
    <svg width={width} height={height}>
      {sorted.map((frame, index) => {
        const y = height - AXIS_HEIGHT - (index + 1) * row;
        const cell = inner / frame.fields[1].values.length;
        return [
          <text key={index} x={left - 8} y={y + row / 2 + 4} fill={theme.colors.text.secondary} fontSize="12" textAnchor="end">{frame.fields[1].config.displayNameFromDS}</text>,
          ...counts[index].map((count, at) => count > 1e-9 && (
            <rect key={`${index}/${at}`} x={left + at * cell} y={y + 0.5} width={cell + 0.3} height={row - 1} fill={theme.visualization.getColorByName('blue')} fillOpacity={0.15 + 0.85 * Math.sqrt(count / most)} />
          )),
        ];
      })}
      <TimeAxis left={left} width={inner} y={height - 6} />
    </svg>
  );
};

const OWN_TEXT = ['stat', 'bargauge'];
const empty = (data) => data.length === 0 || data.every(({ length }) => length === 0);

const Drawn = ({ panel, width, height }) => {
  const data = panel.type === 'table' ? [tableOf(panel)] : framesOf(panel);
  const Panel = { ...panels, 'state-timeline': stateTimeline, heatmap }[panel.type];
  if (!Panel) {
    throw new Error(`${panel.title}: no component draws a ${panel.type}`);
  }
  // A stat and a bar gauge show their own text for no value, the others leave it to the page.
  if (!OWN_TEXT.includes(panel.type) && empty(data)) {
    return <div style={{ height, display: 'grid', placeItems: 'center' }}>{panel.fieldConfig.defaults.noValue ?? 'No data'}</div>;
  }
  return <Panel panel={panel} data={data} width={width} height={height} />;
};

const Placed = ({ panel, pageWidth }) => {
  const { x, y, w, h } = panel.gridPos;
  const column = (pageWidth - CELL_MARGIN * (COLUMNS + 1)) / COLUMNS;
  const width = w * column + (w - 1) * CELL_MARGIN;
  const height = h * CELL_HEIGHT + (h - 1) * CELL_MARGIN;
  const place = {
    position: 'absolute', width, height,
    left: CELL_MARGIN + x * (column + CELL_MARGIN), top: HEADER_HEIGHT + y * (CELL_HEIGHT + CELL_MARGIN),
  };
  if (panel.type === 'row') {
    return <div style={{ ...place, display: 'flex', alignItems: 'center', fontWeight: 500 }}>⌄&ensp;{withTexts(panel.title)}</div>;
  }
  return (
    <div style={place}>
      <PanelChrome title={withTexts(panel.title)} description={panel.description} width={width} height={height}>
        {(innerWidth, innerHeight) => <Drawn panel={panel} width={innerWidth} height={innerHeight} />}
      </PanelChrome>
    </div>
  );
};

const variables = dashboard.templating.list.filter(({ type }) => type !== 'datasource');
const standsAt = ({ name, label, includeAll }) => `${label}: ${includeAll ? 'All' : texts[`$${name}`]}`;

const Page = () => (
  <ThemeContext.Provider value={theme}>
    <GlobalStyles />
    <div style={{ height: HEADER_HEIGHT, display: 'flex', alignItems: 'center', gap: 16, padding: '0 12px' }}>
      <span style={{ fontSize: 18, fontWeight: 500 }}>{dashboard.title}</span>
      <span style={{ flex: 1, color: theme.colors.text.secondary }}>{variables.map(standsAt).join(', ')}</span>
      <span style={{ color: theme.colors.text.secondary }}>{clock(start).slice(0, 5)} to {clock(end).slice(0, 5)} UTC</span>
    </div>
    {dashboard.panels.map((panel) => <Placed key={panel.id} panel={panel} pageWidth={window.innerWidth} />)}
  </ThemeContext.Provider>
);

createRoot(document.getElementById('page')).render(<Page />);
