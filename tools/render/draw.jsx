// Draws the dashboard in `window.recorded` (written by render.py) with Grafana's own components. What is done here
// is what Grafana's page and its panel plugins do around them: the grid, frames from answers, options to properties.
import {
  applyFieldOverrides, createDataFrame, createTheme, dateTime, FieldType,
  getDisplayValueAlignmentFactors, getFieldDisplayValues, Registry, ThemeContext,
} from '@grafana/data';
import { BarGauge, BigValue, GlobalStyles, PanelChrome, TimeSeries, VizRepeater } from '@grafana/ui';
import '@fontsource/inter/400.css';
import '@fontsource/inter/500.css';
import { createRoot } from 'react-dom/client';

const { dashboard, answers, start, end } = window.recorded;
const CELL_HEIGHT = 30;
const CELL_MARGIN = 8;
const COLUMNS = 24;
const HEADER_HEIGHT = 56;

const theme = createTheme({ colors: { mode: 'dark' } });
const timeRange = { from: dateTime(start * 1000), to: dateTime(end * 1000) };
timeRange.raw = { from: timeRange.from, to: timeRange.to };
const asIs = (value) => value;

// Every setting a field may have here; applied by Grafana's own defaults-then-overrides.
const settings = [
  'unit', 'min', 'max', 'decimals', 'displayName', 'noValue', 'color', 'thresholds', 'mappings',
  ...[
    'axisPlacement', 'axisLabel', 'axisSoftMin', 'axisSoftMax', 'axisColorMode', 'axisGridShow', 'barAlignment',
    'drawStyle', 'fillOpacity', 'gradientMode', 'hideFrom', 'lineInterpolation', 'lineStyle', 'lineWidth',
    'pointSize', 'scaleDistribution', 'showPoints', 'spanNulls', 'stacking', 'thresholdsStyle',
  ].map((name) => `custom.${name}`),
];
const fieldConfigRegistry = new Registry(() =>
  settings.map((id) => ({
    id, name: id, path: id.replace('custom.', ''), isCustom: id.startsWith('custom.'),
    process: asIs, shouldApply: () => true, settings: {},
  }))
);

const legendOf = (target, { __name__: name = '', ...labels }) => {
  if (target.legendFormat !== '__auto') {
    return target.legendFormat.replace(/\{\{\s*(\w+)\s*\}\}/g, (_, label) => labels[label] ?? '');
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
  timeseries: ({ panel, data, width, height }) => (
    <TimeSeries
      frames={data} timeRange={timeRange} timeZone="utc" width={width} height={height}
      legend={panel.options.legend} options={panel.options}
    />
  ),
};

const Drawn = ({ panel, width, height }) => {
  const data = framesOf(panel);
  const Panel = panels[panel.type];
  if (!Panel) {
    throw new Error(`${panel.title}: no component draws a ${panel.type}`);
  }
  // A stat and a bar gauge show their own text for no value, a time series leaves it to the page.
  if (panel.type === 'timeseries' && data.length === 0) {
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
    return <div style={{ ...place, display: 'flex', alignItems: 'center', fontWeight: 500 }}>⌄&ensp;{panel.title}</div>;
  }
  return (
    <div style={place}>
      <PanelChrome title={panel.title} description={panel.description} width={width} height={height}>
        {(innerWidth, innerHeight) => <Drawn panel={panel} width={innerWidth} height={innerHeight} />}
      </PanelChrome>
    </div>
  );
};

const clock = (seconds) => new Date(seconds * 1000).toISOString().slice(11, 19);
const variables = dashboard.templating.list.filter(({ type }) => type !== 'datasource');

const Page = () => (
  <ThemeContext.Provider value={theme}>
    <GlobalStyles />
    <div style={{ height: HEADER_HEIGHT, display: 'flex', alignItems: 'center', gap: 16, padding: '0 12px' }}>
      <span style={{ fontSize: 18, fontWeight: 500 }}>{dashboard.title}</span>
      <span style={{ flex: 1, color: theme.colors.text.secondary }}>{variables.map(({ label }) => `${label}: All`).join('   ')}</span>
      <span style={{ color: theme.colors.text.secondary }}>{clock(start)} to {clock(end)} UTC</span>
    </div>
    {dashboard.panels.map((panel) => <Placed key={panel.id} panel={panel} pageWidth={window.innerWidth} />)}
  </ThemeContext.Provider>
);

createRoot(document.getElementById('page')).render(<Page />);
