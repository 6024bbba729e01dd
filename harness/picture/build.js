// The parts of Apache ECharts that page.js uses. This command builds echarts.min.js. Then restore its first line, the licence comment:
//   npm install echarts esbuild && npx esbuild build.js --bundle --minify --format=iife --global-name=echarts --outfile=echarts.min.js
import * as echarts from "echarts/core";
import { LineChart, ScatterChart, CustomChart } from "echarts/charts";
import {
  GridComponent, TooltipComponent, DataZoomComponent, MarkLineComponent, MarkAreaComponent, LegendComponent,
} from "echarts/components";
import { CanvasRenderer } from "echarts/renderers";
echarts.use([
  LineChart, ScatterChart, CustomChart, GridComponent, TooltipComponent, DataZoomComponent, MarkLineComponent,
  MarkAreaComponent, LegendComponent, CanvasRenderer,
]);
export const { init } = echarts;
