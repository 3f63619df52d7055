// In place of react-custom-scrollbars-2, whose default export esbuild and its users read differently. Nothing scrolls
// in a picture.
import { forwardRef } from 'react';

const Scrollbars = forwardRef(({ children, style }, ref) => (
  <div ref={ref} style={{ ...style, height: '100%', overflow: 'hidden' }}>{children}</div>
));

export { Scrollbars };
export default Scrollbars;
